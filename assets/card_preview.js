(text, pictures) => {
  // The card as the Hub would show it: its head as YAML, and the pictures that lie beside it.
  const head = /^---\r?\n([\s\S]*?)\r?\n---\r?(?:\n|$)/.exec(text || '');
  let body = head ? text.slice(head[0].length) : text || '';
  for (const [name, picture] of Object.entries(JSON.parse(pictures || '{}'))) {
    body = body.split(`](${name})`).join(`](${picture})`);
  }
  return (head ? `~~~yaml\n${head[1]}\n~~~\n\n` : '') + body;
}
