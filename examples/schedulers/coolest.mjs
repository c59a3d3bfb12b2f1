/**
 * A scheduler of your own: the coolest nodes first, none that is hotter than the service allows, and no two new instances on one node
 * at a time. The service says what it allows in the app file: `deploy: { labels: { coolest.max-use: "70" } }`.
 *
 * The coordinator loads this file as a module (see rubato.yaml); server.mjs offers the same function over HTTP.
 */
export function schedule(question) {
  const allowed = Number(question.service.labels['coolest.max-use'] ?? 80)
  return {
    apiVersion: 'rubato.scheduler/1',
    nodes: question.nodes.map((node) => {
      // Not measured yet: as warm as it is reserved.
      const use = node.usePercent ?? 100 * (1 - node.free.cpuMillis / node.capacity.cpuMillis)
      if (use > allowed) return { id: node.id, reject: 'too hot' }
      return { id: node.id, score: Math.max(0, Math.min(100, 100 - use)), max: 1 }
    }),
  }
}
