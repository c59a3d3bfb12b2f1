/** The program's version: stamped in by the build, "0.1.0-dev" when run from source. */
declare const RUBATO_VERSION: string | undefined

export const VERSION: string = typeof RUBATO_VERSION === 'string' ? RUBATO_VERSION : '0.1.0-dev'
