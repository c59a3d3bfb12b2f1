/** The lines of a streamed response, as they come. A line longer than 1 MiB is cut: no stream may fill our memory. */
const MAX_LINE_CHARS = 1024 * 1024

export async function* linesOf(response: Response): AsyncGenerator<string> {
  if (response.body === null) return
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of response.body) {
    rest += decoder.decode(chunk, { stream: true })
    const lines = rest.split('\n')
    rest = lines.pop() ?? ''
    if (rest.length > MAX_LINE_CHARS) rest = rest.slice(0, MAX_LINE_CHARS)
    for (const line of lines) if (line !== '') yield line
  }
  if (rest !== '') yield rest
}
