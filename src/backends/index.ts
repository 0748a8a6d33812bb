/** Backends for callers: kernel graph in, files in memory out. */
import type { Graph } from '../ir/graph.ts';
import { programOf, type Emission, type EmitOptions } from './backend.ts';
import { cpu } from './c/emit.ts';
import { wasm } from './wasm/emit.ts';

export * from './backend.ts';
export { groupSteps, type Grouping, type Step, type View } from './group.ts';
export { identifier, identifiers } from './identifier.ts';
export { interfaceOf, type Port, type ProgramInterface } from './interface.ts';
export { planMemory, type Place, type Plan, type PlanOptions } from './plan.ts';
export { portableC, simd128, type Target } from './schedules/target.ts';
export { lower, type LoweredProgram } from './lower.ts';

export const emitC = (graph: Graph<'kernel'>, options: EmitOptions): Emission => cpu.emit(programOf(graph), options);
export const emitWasm = (graph: Graph<'kernel'>, options: EmitOptions): Emission => wasm.emit(programOf(graph), options);
