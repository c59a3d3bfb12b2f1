/**
 * The four functions of the Reflect Metadata proposal that the x509 library's registry calls while it loads. A polyfill of our
 * own, because the usual one is a package more for forty lines. An existing one is left alone.
 */
type Registry = WeakMap<object, Map<unknown, Map<PropertyKey | undefined, unknown>>>

interface MetadataReflect {
  defineMetadata?: (key: unknown, value: unknown, target: object, property?: PropertyKey) => void
  getMetadata?: (key: unknown, target: object, property?: PropertyKey) => unknown
  getOwnMetadata?: (key: unknown, target: object, property?: PropertyKey) => unknown
  hasOwnMetadata?: (key: unknown, target: object, property?: PropertyKey) => boolean
}

/** Makes `Reflect.getMetadata` and its kin available; repeating it changes nothing. */
export function installReflectMetadata(): void {
  const reflect: MetadataReflect = Reflect as MetadataReflect
  if (reflect.getMetadata) return
  const registry: Registry = new WeakMap()
  const own = (key: unknown, target: object, property?: PropertyKey) => registry.get(target)?.get(key)?.get(property)
  reflect.defineMetadata = (key, value, target, property) => {
    const ofTarget = registry.get(target) ?? new Map()
    const ofKey = ofTarget.get(key) ?? new Map()
    registry.set(target, ofTarget.set(key, ofKey.set(property, value)))
  }
  reflect.getOwnMetadata = own
  reflect.hasOwnMetadata = (key, target, property) => registry.get(target)?.get(key)?.has(property) === true
  reflect.getMetadata = (key, target, property) => {
    for (let at: object | null = target; at !== null; at = Object.getPrototypeOf(at) as object | null) {
      const value = own(key, at, property)
      if (value !== undefined) return value
    }
    return undefined
  }
}
