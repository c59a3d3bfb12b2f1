/** Parts of composed names. Pure. */

/** App and service name of a service id `app/service` or of an instance id. */
export function partsOfService(id: string): { readonly app: string; readonly service: string } {
  const [app = '', service = ''] = id.split('/', 2)
  return { app, service }
}
