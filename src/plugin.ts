/**
 * Plugins: plain objects with ops, passes and backends. A Toolbox is built from the built-ins and the plugins and handed down; there
 * is no global registry. Two owners of one name are an error that names both.
 */
import { CompileError } from './ir/diagnostic.ts';
import { errors } from './ir/errors.ts';
import type { AnyOpDef } from './ir/op.ts';
import type { AnyPass } from './passes/pass.ts';
import type { Backend } from './backends/backend.ts';

export interface PlacedPass {
  readonly pass: AnyPass;
  /** the pass of a preset before or after which this one is put; absent = only when a pipeline names it */
  readonly before?: string;
  readonly after?: string;
  readonly options?: Readonly<Record<string, unknown>>;
}
export interface Plugin {
  readonly name: string;
  /** named `vendor.op` */
  readonly ops?: readonly AnyOpDef[];
  readonly passes?: readonly PlacedPass[];
  readonly backends?: readonly Backend[];
}
export const definePlugin = <const P extends Plugin>(plugin: P): P => plugin;

export interface Toolbox {
  readonly ops: ReadonlyMap<string, AnyOpDef>;
  readonly passes: ReadonlyMap<string, AnyPass>;
  readonly backends: ReadonlyMap<string, Backend>;
  readonly plugins: readonly Plugin[];
}

export const buildToolbox = (
  builtIn: { readonly ops: readonly AnyOpDef[]; readonly passes: readonly AnyPass[]; readonly backends: readonly Backend[] },
  plugins: readonly Plugin[],
): Toolbox => {
  const owners = new Map<string, string>();
  const add = <T>(kind: string, table: Map<string, T>, name: string, thing: T, owner: string): void => {
    const key = `${kind} ${name}`;
    const first = owners.get(key);
    if (first !== undefined) throw new CompileError(errors.nameClash(kind, name, first, owner), 'usage');
    owners.set(key, owner);
    table.set(name, thing);
  };
  const [ops, passes, backends] = [new Map<string, AnyOpDef>(), new Map<string, AnyPass>(), new Map<string, Backend>()];
  builtIn.ops.forEach((op) => add('op', ops, op.name, op, 'lowbitc'));
  builtIn.passes.forEach((pass) => add('pass', passes, pass.name, pass, 'lowbitc'));
  builtIn.backends.forEach((backend) => add('backend', backends, backend.name, backend, 'lowbitc'));
  for (const plugin of plugins) {
    plugin.ops?.forEach((op) => add('op', ops, op.name, op, plugin.name));
    plugin.passes?.forEach(({ pass }) => add('pass', passes, pass.name, pass, plugin.name));
    plugin.backends?.forEach((backend) => add('backend', backends, backend.name, backend, plugin.name));
  }
  return { ops, passes, backends, plugins };
};
