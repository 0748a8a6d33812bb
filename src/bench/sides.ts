/** How each thing that can be timed is made into a side: compiled C, compiled WebAssembly, single steps of both, peak loops, ONNX Runtime. */
import { copyFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { targetFolder, type Folder } from '../artefact/load.ts';
import { programOf } from '../backends/backend.ts';
import { onlyMacro, type Variant } from '../backends/c/variants.ts';
import { identifier } from '../backends/identifier.ts';
import { cTypeOf, interfaceOf } from '../backends/interface.ts';
import { buildC } from '../backends/run.ts';
import { simd128, type Target } from '../backends/schedules/target.ts';
import { wasm } from '../backends/wasm/emit.ts';
import { relaxedFlags } from '../backends/wasm/relaxed.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import type { Graph } from '../ir/graph.ts';
import { CACHE_LINE, driverText } from './c-driver.ts';
import { madeUpCodes } from './inputs.ts';
import { probeText, runnableVariants, titleOf } from './instructions.ts';
import { cItems, wasmItems } from './items.ts';
import { Side } from './side.ts';
import type { Job, ModelInput } from './worker.ts';

/** Something that can be started as a process, as often as wanted. */
export interface Contender {
  readonly name: string;
  readonly kind: 'target' | 'peer';
  /** speed rises while an engine compiles what runs often */
  readonly warmsUp: boolean;
  start(): Promise<Side>;
}

/** Files that live as long as this process. */
let scratch: string | null = null;
const newFolder = (): string => {
  if (scratch === null) {
    const made = mkdtempSync(join(tmpdir(), 'lowbitc-bench-'));
    scratch = made;
    process.on('exit', () => rmSync(made, { recursive: true, force: true }));
  }
  return mkdtempSync(join(scratch, 'side-'));
};
const fileOf = (bytes: Uint8Array | string, name: string): string => {
  const path = join(newFolder(), name);
  writeFileSync(path, bytes);
  return path;
};

const worker = (name: string, job: Job, items = 1, flags: readonly string[] = []): Promise<Side> =>
  Side.start(name, process.execPath, [...flags, fileURLToPath(new URL('./worker.js', import.meta.url)), JSON.stringify(job)], items);

/** A generated driver compiled, beside the sources of `folder` if there is one. */
const built = (name: string, source: string, flags: readonly string[], folder: string | null): string => {
  const home = newFolder();
  if (folder !== null) for (const file of readdirSync(folder)) if (/\.[ch]$/.test(file) && file !== 'main.c') copyFileSync(join(folder, file), join(home, file));
  writeFileSync(join(home, 'main.c'), source);
  try {
    return buildC(home, 'bench', flags);
  } catch (cause) {
    const lines = (cause as Error).message.split('\n');
    throw new CompileError(errors.timingFailed(name, lines.find((line) => line.includes('error')) ?? lines[0]));
  }
};

/** The variants that this machine runs, the fastest first. */
export const variantsHere = (flags: readonly string[]): readonly Variant[] => runnableVariants(built('probe', probeText, flags, null));

/** The C of a folder: all variants, of which it takes one itself, or the given one alone. */
export const compiledC = (folder: Folder, flags: readonly string[], variant: Variant | null = null): Contender => {
  const id = identifier(folder.manifest.name);
  const { inputs, outputs } = interfaceOf(folder.graph);
  const codes = inputs.map(madeUpCodes);
  let end = 0;
  const offsets = codes.map(({ byteLength }) => {
    const offset = end;
    end = Math.ceil((end + byteLength) / CACHE_LINE) * CACHE_LINE;
    return offset;
  });
  const data = new Uint8Array(end);
  codes.forEach(({ buffer, byteOffset, byteLength }, i) => data.set(new Uint8Array(buffer, byteOffset, byteLength), offsets[i]));
  const definitions = `\
#include "${id}.h"
static uint8_t arena[${id.toUpperCase()}_ARENA_BYTES + 1] LB_ALIGNED;
${outputs.map((port) => `static ${cTypeOf(port.dtype)} out_${port.id}[${port.elements}] LB_ALIGNED;`).join('\n')}
static void run(void)
{
    static ${id}_inputs inputs;
    static ${id}_outputs outputs;
${inputs.map((port, i) => `    inputs.${port.id} = (const ${cTypeOf(port.dtype)} *)(lb_data + ${offsets[i]});`).join('\n')}
${outputs.map((port) => `    outputs.${port.id} = out_${port.id};`).join('\n')}
    if (${id}_run(&inputs, &outputs, arena) != 0) exit(1);
}`;
  let program: { readonly path: string; readonly data: string } | null = null;
  const name = variant === null ? 'cpu' : `cpu ${variant.name}`;
  return {
    name, kind: 'target', warmsUp: false,
    start: () => {
      program ??= {
        path: built(name, driverText({ definitions, items: ['run'], dataBytes: data.length, timesStart: true }), [...flags, ...(variant === null ? [] : [`-D${onlyMacro(id, variant)}`])], targetFolder(folder, 'cpu')),
        data: fileOf(data, 'inputs.bin'),
      };
      return Side.start(name, program.path, [program.data]);
    },
  };
};

export const compiledWasm = (folder: Folder): Contender => ({
  name: 'wasm', kind: 'target', warmsUp: true,
  start: () => worker('wasm', {
    kind: 'program', module: resolve(targetFolder(folder, 'wasm'), `${identifier(folder.manifest.name)}.mjs`), inputs: interfaceOf(folder.graph).inputs, threads: 1,
  }),
});
/** The same graph as WebAssembly for threads, on so many. */
export const wasmOnThreads = ({ manifest, graph }: Folder, threads: number): Contender => {
  let home: string | null = null;
  return {
    name: `wasm on ${threads} threads`, kind: 'target', warmsUp: true,
    start: async () => {
      if (home === null) {
        home = newFolder();
        const { artefacts } = await wasm.configure('threads').emit(programOf(graph), { name: manifest.name });
        for (const { path, bytes } of artefacts) writeFileSync(join(home, basename(path)), bytes);
      }
      return worker(`wasm on ${threads} threads`, { kind: 'program', module: join(home, `${identifier(manifest.name)}.mjs`), inputs: interfaceOf(graph).inputs, threads });
    },
  };
};

/** The steps of kernel graphs, each an item. */
export const cSteps = (graphs: readonly Graph<'kernel'>[], variant: Variant, flags: readonly string[]): Promise<Side> => {
  const { source, data, count } = cItems(graphs, variant);
  const name = `steps in ${titleOf(variant)}`;
  return Side.start(name, built(name, source, flags, null), [fileOf(data, 'data.bin')], count);
};
export const wasmSteps = (graphs: readonly Graph<'kernel'>[], target: Target = simd128): Promise<Side> => {
  const { bytes, exports } = wasmItems(graphs, target);
  return wasmSide(`steps in ${target.name}`, bytes, exports, target === simd128 ? [] : relaxedFlags());
};
export const wasmSide = (name: string, bytes: Uint8Array, exports: readonly string[], flags: readonly string[] = []): Promise<Side> =>
  worker(name, { kind: 'items', wasm: fileOf(bytes, 'items.wasm'), exports }, exports.length, flags);
export const cSide = (name: string, source: string, flags: readonly string[], items: number): Promise<Side> =>
  Side.start(name, built(name, source, flags, null), [], items);

/** Peers by the name that `--peer` takes: the package, and whether it is the one for browsers. */
export const peers = {
  onnxruntime: { package: 'onnxruntime-node', web: false },
  'onnxruntime-web': { package: 'onnxruntime-web', web: true },
} as const;
export type Peer = keyof typeof peers;
export const peerNames = Object.keys(peers) as readonly Peer[];

/** The file that a package starts with: installed where lowbitc runs, beside lowbitc, or in the folder LOWBITC_PEERS. Null where it is nowhere. */
export const findPeer = (peer: Peer): string | null => {
  const folders = [process.env['LOWBITC_PEERS'], process.cwd(), fileURLToPath(new URL('.', import.meta.url))];
  for (const folder of folders) {
    if (folder === undefined) continue;
    try {
      return createRequire(join(resolve(folder), 'index.js')).resolve(peers[peer].package);
    } catch {
      // the next folder may have it
    }
  }
  return null;
};

/** A model in ONNX Runtime, one thread. */
export const inRuntime = (name: string, peer: Peer, model: string, inputs: readonly ModelInput[]): Contender => {
  const entry = findPeer(peer);
  if (entry === null) throw new CompileError(errors.noPeer(peers[peer].package, 'it is not installed'), 'usage');
  return { name, kind: 'peer', warmsUp: true, start: () => worker(name, { kind: 'onnxruntime', entry, web: peers[peer].web, model: resolve(model), inputs }) };
};
