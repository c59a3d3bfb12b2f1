/** The image of a service and when it is pulled. */
import type { ContainerSpec } from '../../shared/model/unit.ts'
import type { Context } from './context.ts'
import type { Cursor } from './located.ts'
import { type Report, shorten } from './report.ts'
import { text, word } from './values.ts'

const IMAGE =
  /^(?:[a-zA-Z0-9.-]+(?::\d+)?\/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:\/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*(?::[\w][\w.-]{0,127})?(?:@sha256:[a-f0-9]{64})?$/

/** '' where there is none, as for a process, or where the fault is in the report. */
export function readImage(
  context: Context,
  cursor: Cursor,
  get: (key: string) => Cursor | undefined,
  runtime: 'docker' | 'process',
): string {
  const { report } = context
  const at = get('image')
  const build = get('build')
  const image = word(report, at, 'image', 512)
  if (at === undefined) {
    if (runtime === 'process') return ''
    if (build !== undefined)
      report.fault(
        build,
        '"build" without "image" is not supported: Rubato builds no images',
        'build and push it, and name it with "image"',
      )
    else
      report.fault(
        cursor,
        'the service has neither "image" nor "build"',
        'name an image; a file made to be laid over another needs that one too (-f base.yml -f this.yml)',
      )
    return ''
  }
  if (build !== undefined) report.warn(build, '"build" is ignored: the image is pulled as it is named')
  if (image === undefined) return ''
  if (!IMAGE.test(image)) {
    report.fault(
      at,
      `"${shorten(image)}" is no name of an image`,
      image === image.toLowerCase() ? 'name[:tag] or name@sha256:digest' : 'names of images are lower-case',
    )
    return ''
  }
  const last = image.slice(image.lastIndexOf('/') + 1)
  if (!image.includes('@')) {
    if (!last.includes(':'))
      report.warn(at, `the image ${shorten(image)} names no version, so "latest" is run: nodes may come to run different ones`)
    else if (last.endsWith(':latest'))
      report.warn(at, `the image ${shorten(image)} may change under its tag: nodes may come to run different ones`)
  }
  return image
}

export function readPullPolicy(report: Report, cursor: Cursor | undefined): ContainerSpec['pullPolicy'] {
  const value = text(report, cursor, 'pull_policy')
  if (value === undefined || cursor === undefined || value === 'missing' || value === 'if_not_present') return 'missing'
  if (value === 'always' || value === 'never') return value
  if (/^(refresh|daily|weekly|every_(\d+[wdhms])+)$/.test(value)) {
    report.warn(cursor, `pull_policy ${value} pulls at every start of an instance, never while it runs`)
    return 'always'
  }
  if (value === 'build')
    report.warn(cursor, 'pull_policy build is ignored: Rubato builds no images; the image is pulled when missing')
  else report.fault(cursor, `pull_policy "${shorten(value)}" is not known`, 'always, missing, never')
  return 'missing'
}
