"""The Gradio page: its layout, its events, its server.

Gradio contributes sliders, queue and server. The drop zone, the stage (spectrograms, player,
download) and the status line are HTML of our own in `static/`, each with a script that gets the
component's value; they are what Gradio's stock components do not do or do with clutter.

Handlers are generators of {component: what to show}. Each open page is a visit, known by Gradio's
session hash; its script asks every few seconds whether the visit is still there.
"""

import json
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from saga_sr.app import facts
from saga_sr.app.visits import Steps, StoppedError, Visit
from saga_sr.app.words import LANGUAGES, WORDS, Message, PageError, language_of, message
from saga_sr.support.errors import UserError

if TYPE_CHECKING:
    from saga_sr.app.studio import Studio

STATIC = Path(__file__).parent / "static"

Shown = dict[Any, Any]  # component -> its update

I18N = gr.I18n(
    **{
        tag: {key: words[language] for key, words in WORDS.items()}
        for language in LANGUAGES
        for tag in {"en": ("en",), "zh": ("zh", "zh-CN", "zh-TW", "zh-HK")}[language]
    }
)


class Page:
    """The page of a studio."""

    def __init__(self, studio: "Studio") -> None:
        self.studio = studio
        with gr.Blocks(title="SAGA-SR", analytics_enabled=False, fill_width=True) as self.blocks:
            _html("header", None)
            with gr.Row(elem_id="columns", equal_height=False):
                with gr.Column(elem_id="controls", scale=0, min_width=0):
                    self._build_controls()
                with gr.Column(elem_id="result", scale=1, min_width=0):
                    self.stage = _html("stage", {})
            self._connect()
        self.blocks.queue(default_concurrency_limit=20, api_open=False)

    def launch(self, host: str, port: int | None) -> str:
        """Start the server in the background; returns its address.

        Raises:
            UserError: it cannot listen there.
        """
        try:
            _, address, _ = self.blocks.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                footer_links=[],
                allowed_paths=[str(self.studio.root)],
                theme=_theme(),
                css=_read("page.css"),
                head=f"<script>{_say_script()}</script>",
                i18n=I18N,
                app_kwargs={"routes": self._routes()},
            )
        except OSError as error:
            raise UserError(
                f"--host {host} --port {port}: cannot listen there ({error})"
            ) from error
        return address.rstrip("/")

    def close(self) -> None:
        self.blocks.close(verbose=False)

    # --- routes ---------------------------------------------------------------------------------

    def _routes(self) -> list[Route]:
        """What the page's scripts ask for; they come before Gradio's own."""
        return [
            Route("/upload", self.on_file, methods=["POST"]),
            Route("/visit/{key}", self.on_presence),
            Route("/gradio_api/upload", _not_here, methods=["POST"]),  # see `uploads`
        ]

    async def on_file(self, request: Request) -> JSONResponse:
        """A file, as the request's body; ``name`` is in the query."""
        try:
            name = request.query_params.get("name", "")
            token = await self.studio.uploads.receive(name, request.stream())
        except PageError as error:
            language = language_of(request.headers.get("accept-language", ""))
            return JSONResponse({"error": error.message.text(language)}, 413)
        return JSONResponse({"token": token})

    async def on_presence(self, request: Request) -> JSONResponse:
        """Whether the server still has what is shown on a page."""
        return JSONResponse({"open": self.studio.is_open(request.path_params["key"])})

    # --- layout ---------------------------------------------------------------------------------

    def _build_controls(self) -> None:
        labels = self.studio.labels
        settings = facts.control_settings(self.studio.configs[labels[0]])
        self.drop = _html("drop", facts.upload_limit(self.studio.max_duration_s))
        self.model = gr.Dropdown(
            labels, value=labels[0], label=I18N("model"), visible=len(labels) > 1
        )
        self.rolloff_hz = gr.Slider(
            label=I18N("rolloff"),
            info=I18N("rolloff_info"),
            elem_id="rolloff",
            **settings["rolloff_hz"],
        )
        self.prompt = gr.Textbox(
            label=I18N("prompt"),
            placeholder=I18N("prompt_placeholder"),
            max_lines=2,
            elem_id="prompt",
            **settings["prompt"],
        )
        self.run = gr.Button(I18N("restore"), variant="primary", interactive=False, elem_id="run")
        self.halt = gr.Button(I18N("stop"), visible=False, elem_id="halt")
        self.status = _html("status", facts.status_value("idle"))
        with gr.Accordion(I18N("more"), open=False, elem_id="more"):
            self._build_more(settings)

    def _build_more(self, settings: dict[str, dict[str, Any]]) -> None:
        self.num_steps = gr.Slider(
            label=I18N("steps"),
            info=I18N("steps_info"),
            elem_id="steps",
            **settings["num_steps"],
        )
        self.guidance_acoustic = gr.Slider(
            label=I18N("guidance_acoustic"),
            info=I18N("guidance_acoustic_info"),
            **settings["guidance_acoustic"],
        )
        self.guidance_text = gr.Slider(
            label=I18N("guidance_text"),
            info=I18N("guidance_text_info"),
            **settings["guidance_text"],
        )
        self.seed = gr.Number(
            0,
            label=I18N("seed"),
            info=I18N("seed_info"),
            precision=0,
            elem_id="seed",
        )

    def _connect(self) -> None:
        tuned = [
            self.rolloff_hz,
            self.prompt,
            self.num_steps,
            self.guidance_acoustic,
            self.guidance_text,
        ]
        shown = [self.stage, self.status, self.run, self.halt]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        self.drop.upload(self.on_upload, None, shown, trigger_mode="multiple", **quiet)
        self.model.change(self.on_model, self.model, tuned, **quiet)
        self.run.click(self.on_run, [self.model, *tuned, self.seed], shown, **quiet)
        self.halt.click(self.on_halt, None, None, **quiet)
        self.blocks.load(self.on_load, None, self.status, **quiet)
        self.blocks.unload(self.on_unload)

    # --- events ---------------------------------------------------------------------------------

    def on_load(self, request: gr.Request) -> Shown:
        """The page was opened: it is told what its visit is called."""
        self._visit(request)
        return {self.status: facts.status_value("idle") | {"visit": _key(request)}}

    def on_upload(self, event: gr.EventData, request: gr.Request) -> Iterator[Shown]:
        """A file has arrived, or the example was asked for: measure it and show it."""
        language, visit = _language(request), self._visit(request)
        try:
            token = event._data.get("token")
            steps = (
                self.studio.load_example(visit)
                if token is None
                else self.studio.load(visit, str(token))
            )
            yield from self._busy(steps, "measuring", request)
        except StoppedError:  # a newer file
            return
        except Exception as error:
            yield {self.status: self._failure(error, request)}
            return
        clip = steps.done
        yield {
            self.stage: facts.stage_value(clip, language=language),
            self.status: self._status("idle", facts.clip_verdict(clip), request),
            self.run: gr.update(interactive=True),
        }

    def on_model(self, label: str) -> Iterator[Shown]:
        """Another model: the controls that it has, at its defaults."""
        settings = facts.control_settings(self.studio.configs[label])
        yield {getattr(self, name): gr.update(**values) for name, values in settings.items()}

    def on_run(
        self,
        label: str,
        rolloff_hz: float,
        prompt: str,
        num_steps: float,
        guidance_acoustic: float,
        guidance_text: float,
        seed: float | None,
        request: gr.Request,
    ) -> Iterator[Shown]:
        """Restore what is loaded."""
        visit = self._visit(request)
        running = {self.run: gr.update(visible=False), self.halt: gr.update(visible=True)}
        ended = {self.run: gr.update(visible=True), self.halt: gr.update(visible=False)}
        steps: Steps[Any] | None = None
        try:
            options = self.studio.options(
                label,
                rolloff_hz=rolloff_hz,
                prompt=prompt,
                num_steps=num_steps,
                guidance_acoustic=guidance_acoustic,
                guidance_text=guidance_text,
                seed=seed,
            )
            steps = self.studio.restore(visit, label, options)
            yield running
            yield from self._busy(steps, "restoring", request)
        except StoppedError:
            by_the_button = steps is not None and steps.stop is visit.stop
            stopped = {self.status: self._status("idle", message("stopped"), request)}
            yield ended | (stopped if by_the_button else {})
            return
        except Exception as error:
            yield ended | {self.status: self._failure(error, request)}
            return
        clip, result = visit.clip, steps.done
        assert clip is not None
        yield ended | {
            self.stage: facts.stage_value(clip, result, _language(request)),
            self.status: self._status("done", facts.result_verdict(result), request),
        }

    def on_halt(self, request: gr.Request) -> None:
        """Stop the restoration."""
        self._visit(request).stop.set()

    def on_unload(self, request: gr.Request) -> None:
        """The page was closed."""
        self.studio.leave(_key(request))

    def _visit(self, request: gr.Request) -> Visit:
        return self.studio.visit(_key(request))

    def _busy(self, steps: Steps[Any], verb: str, request: gr.Request) -> Iterator[Shown]:
        start = time.monotonic()
        for fraction in steps:
            text = facts.busy_text(verb, fraction, time.monotonic() - start)
            yield {self.status: self._status("busy", text, request, max(fraction, 0.0))}

    def _failure(self, error: Exception, request: gr.Request) -> dict[str, Any]:
        """An error as the status; one that nobody foresaw is also told in the terminal."""
        if not isinstance(error, UserError):
            traceback.print_exception(error, file=sys.stderr)
        return self._status("error", facts.error_text(error), request)

    @staticmethod
    def _status(
        kind: str, text: Message | str, request: gr.Request, fraction: float | None = None
    ) -> dict[str, Any]:
        value = facts.status_value(kind, text, _language(request), fraction)
        return value | {"visit": _key(request)}


def _key(request: gr.Request) -> str:
    return str(request.session_hash)


def _language(request: gr.Request) -> str:
    return language_of(request.headers.get("accept-language", ""))


async def _not_here(_: Request) -> JSONResponse:
    return JSONResponse({"error": "files are sent to /upload"}, 404)


def _say_script() -> str:
    """`static/say.js` with the words in it; ``</`` would end the script."""
    words = json.dumps(WORDS, ensure_ascii=False).replace("</", "<\\/")
    return _read("say.js").replace("__WORDS__", words)


def _html(name: str, value: Any) -> gr.HTML:
    """A component of our own: ``static/name.html`` with ``static/name.js``."""
    return gr.HTML(
        value,
        html_template=_read(f"{name}.html"),
        js_on_load=_read(f"{name}.js"),
        apply_default_css=False,
        elem_id=name,
    )


def _read(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def _theme() -> gr.themes.Base:
    """Gradio's own parts in the page's colours, by day as by night; no font is fetched."""
    colours = {
        "body_background_fill": "#0e0f13",
        "body_text_color": "#e7e5e1",
        "body_text_color_subdued": "#8d8f9a",
        "background_fill_primary": "#0e0f13",
        "background_fill_secondary": "#16171d",
        "block_background_fill": "transparent",
        "block_border_color": "transparent",
        "block_label_text_color": "#e7e5e1",
        "block_title_text_color": "#e7e5e1",
        "block_info_text_color": "#8d8f9a",
        "border_color_primary": "#2a2c35",
        "border_color_accent": "#f0925c",
        "color_accent_soft": "#2b211c",
        "input_background_fill": "#16171d",
        "input_border_color": "#2a2c35",
        "input_border_color_focus": "#f0925c",
        "input_placeholder_color": "#62646f",
        "slider_color": "#f0925c",
        "button_primary_background_fill": "#f0925c",
        "button_primary_background_fill_hover": "#f6a678",
        "button_primary_text_color": "#1a120d",
        "button_primary_border_color": "transparent",
        "button_secondary_background_fill": "#1d1f27",
        "button_secondary_background_fill_hover": "#262933",
        "button_secondary_text_color": "#e7e5e1",
        "button_secondary_border_color": "#2a2c35",
    }
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.zinc,
        radius_size=gr.themes.sizes.radius_md,
        font=["Inter", "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return theme.set(**colours, **{f"{name}_dark": value for name, value in colours.items()})
