/** `/docs`: one page without outside assets that reads `/openapi.json` and lists every route with its inputs and answers. */
export const DOCS_PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Rubato API</title>
<style>
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1.5rem; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { border: 1px solid var(--line); border-radius: 6px; overflow: auto; padding: .75rem; }
details { border-bottom: 1px solid var(--line); padding: .4rem 0; }
summary { cursor: pointer; }
.method { display: inline-block; font-weight: 600; min-width: 4.5rem; }
.what { opacity: .75; }
</style>
</head>
<body>
<main>
<h1>Rubato API</h1>
<p>Machine readable: <a href="/openapi.json">/openapi.json</a>. Errors are <code>application/problem+json</code> (RFC 9457).
Send <code>Authorization: Bearer rbto_…</code>.</p>
<div id="routes" aria-live="polite">Loading…</div>
</main>
<script>
const element = (name, text, className) => {
  const made = document.createElement(name)
  if (text) made.textContent = text
  if (className) made.className = className
  return made
}
fetch('/openapi.json').then((response) => response.json()).then((api) => {
  const root = document.getElementById('routes')
  root.textContent = ''
  const tags = new Map()
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      const tag = (route.tags || ['other'])[0]
      if (!tags.has(tag)) tags.set(tag, [])
      tags.get(tag).push({ path, method, route })
    }
  }
  for (const [tag, routes] of tags) {
    root.append(element('h2', tag))
    for (const { path, method, route } of routes) {
      const details = element('details')
      const summary = element('summary')
      summary.append(element('span', method.toUpperCase(), 'method'), element('code', path), element('span', ' ' + route.summary, 'what'))
      details.append(summary, element('p', route.description))
      const shown = { parameters: route.parameters, body: route.requestBody, responses: route.responses }
      details.append(element('pre', JSON.stringify(shown, null, 2)))
      root.append(details)
    }
  }
  root.append(element('h2', 'Shapes'), element('pre', JSON.stringify(api.components.schemas, null, 2)))
}).catch((error) => { document.getElementById('routes').textContent = 'The description could not be read: ' + error.message })
</script>
</body>
</html>
`
