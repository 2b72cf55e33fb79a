// The page's words in the browser's language: window.saga = {language, say, fill}.
window.saga = (() => {
  const words = __WORDS__;
  const language = (navigator.language || '').toLowerCase().startsWith('zh') ? 'zh' : 'en';
  document.documentElement.lang = language;

  function say(key, values = {}) {
    return words[key][language].replace(/\{(\w+)\}/g, (_, name) => values[name]);
  }

  // Fills what is marked below root: data-say is an element's text, data-say-label its aria-label,
  // data-say-alt its alt.
  function fill(root) {
    const marked = (attribute) => root.querySelectorAll(`[${attribute}]`);
    for (const element of marked('data-say')) element.textContent = say(element.dataset.say);
    for (const element of marked('data-say-label'))
      element.setAttribute('aria-label', say(element.dataset.sayLabel));
    for (const element of marked('data-say-alt')) element.alt = say(element.dataset.sayAlt);
  }

  return { language, say, fill };
})();
