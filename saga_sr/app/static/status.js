// One line below the button, with a bar while something runs. props.value: {kind, text, fraction}.
const root = element.querySelector('.status');

function show() {
  const { kind, text, fraction } = props.value;
  root.dataset.kind = kind;
  root.querySelector('.status-text').textContent = text;
  root.querySelector('.status-bar i').style.width = `${100 * (fraction ?? 0)}%`;
}

watch('value', show);
show();
