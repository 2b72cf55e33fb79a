"""``python -m saga_sr COMMAND``: the same as ``saga-sr COMMAND``."""

from saga_sr.cli import main

raise SystemExit(main())
