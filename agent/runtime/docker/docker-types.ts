/** The words of the engine's client that pure files need. */
import type Docker from 'dockerode'

export type EngineCreateOptions = Docker.ContainerCreateOptions
export type EngineInspectInfo = Docker.ContainerInspectInfo
