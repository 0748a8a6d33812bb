/**
 * Target `cpu`: a C99 library of one function, its constants, a program that runs samples through it, and files for make and CMake.
 * No allocation, no global state, nothing of the C library beyond what a compiler itself may call (memcpy, memset).
 */
import { createHash } from 'node:crypto';
import { printShape } from '../../ir/dim.ts';
import { bytesOf } from '../../loops/build.ts';
import { functionsOf, isShared } from '../../loops/walk.ts';
import type { Buffer } from '../../loops/types.ts';
import type { Artefact, Backend, Emission, EmitOptions, Program, ProgramPrice } from '../backend.ts';
import { identifier } from '../identifier.ts';
import { cTypeOf, interfaceOf, printPort, type Port, type ProgramInterface } from '../interface.ts';
import { lower, type LoweredProgram } from '../lower.ts';
import { priceOf } from '../price.ts';
import { chooseVariant, machineFile } from './machines.ts';
import { cPrinter, ctypeOf } from './print.ts';
import { sharingText } from './threads.ts';
import { fallbackVariant, machineVariants, onlyMacro, portableVariant, presenceText, presentMacro, variants, type Variant } from './variants.ts';

export const cpu = {
  name: 'cpu',
  summary: 'C99 with versions for AVX-512, AVX2, NEON and Cortex-M, one call, no allocation',
  emit: (program: Program, options: EmitOptions): Emission => {
    const id = identifier(options.name);
    const ports = interfaceOf(program.graph);
    const versions = variants.map((variant): Version => ({ variant, lowered: lower(program, variant.schedule) }));
    const arenaBytes = Math.max(...versions.map(({ lowered }) => lowered.plan.arenaBytes));
    const sharing = versions.some(({ lowered: { loops } }) => functionsOf(loops.body).some(isShared))
      ? { first: roundUp(arenaBytes), own: roundUp(Math.max(...versions.map(({ lowered }) => lowered.scratchBytes))) } : null;
    const pool = new Pool(versions);
    const file = (path: string, text: string): Artefact => ({ path: `cpu/${path}`, bytes: new TextEncoder().encode(text) });
    const inOwnFile = ({ variant }: Version): boolean => variant.machine !== null;
    return {
      artefacts: [
        file(`${id}.h`, headerText(id, ports, arenaBytes, sharing)), file(`${id}.c`, mainSourceText(id, ports, versions.filter((version) => !inOwnFile(version)), pool, sharing)),
        ...versions.filter(inOwnFile).map((version) => file(`${id}_${version.variant.name}.c`, variantSourceText(id, ports, version, pool, sharing))),
        file(`${id}_weights.c`, weightsText(id, pool)), file('main.c', mainText(id, ports)),
        file('Makefile', makefileText(id, sharing !== null)), file('CMakeLists.txt', cmakeText(id, sharing !== null)),
      ],
      arenaBytes, weightBytes: pool.bytes,
    };
  },
  /** Of the binary that holds most: all versions of one family of processors. */
  price: (program: Program): ProgramPrice => {
    const families = [...new Set(variants.map(({ family }) => family))].map((family) =>
      priceOf(variants.filter((variant) => variant.family === family).map(({ schedule }) => lower(program, schedule)), contentKey));
    const arenaBytes = Math.max(...families.map((family) => family.arenaBytes));
    return { ...families.reduce((most, family) => (family.weightBytes > most.weightBytes ? family : most)), arenaBytes };
  },
} as const satisfies Backend;

/** One version of the program. */
interface Version {
  readonly variant: Variant;
  readonly lowered: LoweredProgram;
}

/** The constants of all versions, each content once, and the versions that read it. */
class Pool {
  readonly all: { readonly buffer: Buffer; readonly readers: Variant[] }[] = [];
  private readonly numbers = new Map<Buffer, number>();
  constructor(versions: readonly Version[]) {
    const byContent = new Map<string, number>();
    for (const { variant, lowered } of versions) for (const buffer of lowered.constants) {
      const key = contentKey(buffer);
      const number = byContent.get(key) ?? this.all.length;
      if (number === this.all.length) this.all.push({ buffer, readers: [] });
      byContent.set(key, number);
      this.all[number].readers.push(variant);
      this.numbers.set(buffer, number);
    }
  }
  numberOf(buffer: Buffer): number {
    return this.numbers.get(buffer)!;
  }
  /** Bytes in the binary that holds most: all versions of one family of processors. */
  get bytes(): number {
    const within = (family: Variant['family']): number =>
      this.all.reduce((sum, { buffer, readers }) => (readers.some((variant) => variant.family === family) ? sum + buffer.data!.byteLength : sum), 0);
    return Math.max(...variants.map(({ family }) => within(family)));
  }
}
const contentKey = ({ e, data }: Buffer): string => `${e} ${createHash('sha256').update(new Uint8Array(data!.buffer, data!.byteOffset, data!.byteLength)).digest('hex')}`;

const ARENA_ALIGNMENT = 16;
/** Scratch memories of two threads share no line of the cache. */
const OWN_ALIGNMENT = 64;
const roundUp = (bytes: number): number => Math.ceil(bytes / OWN_ALIGNMENT) * OWN_ALIGNMENT;
/** Where threads may share the work: bytes of the arena that the first one uses, and of the scratch memory of every other. */
interface Sharing {
  readonly first: number;
  readonly own: number;
}
const generated = '/* Generated by lowbitc. Integers only. */';

/** A real number that is representable in float32, as a C literal of type float with all its digits. */
const floatLiteral = (value: number): string => {
  const text = value.toPrecision(9);
  return `${/[.e]/.test(text) ? text : `${text}.0`}f`;
};
const constantsOf = (id: string, kind: 'INPUT' | 'OUTPUT', port: Port): string => {
  const stem = `${id}_${kind}_${port.id}`.toUpperCase();
  return [
    `/* "${port.name.replaceAll('*/', '* /')}": ${printPort(port)}${port.scale === null ? ', plain integers' : ', real = (code - zero) * scale'} */`,
    `#define ${stem}_RANK ${port.shape.length}`, `#define ${stem}_SHAPE { ${printShape(port.shape) || '1'} }`, `#define ${stem}_ELEMENTS ${port.elements}`,
    ...(port.scale === null ? [] : [`#define ${stem}_SCALE ${floatLiteral(port.scale)}`, `#define ${stem}_ZERO ${port.zero}`]),
    `#define ${stem}_LOW ${literal(port.low)}`, `#define ${stem}_HIGH ${literal(port.high)}`,
  ].join('\n');
};
const literal = (value: number): string => (value === -(2 ** 31) ? '(-2147483647 - 1)' : value < 0 ? `(${value})` : `${value}${value >= 2 ** 31 ? 'u' : ''}`);
const struct = (name: string, ports: readonly Port[], qualifier: string): string =>
  `typedef struct {\n${ports.map(({ id, dtype, elements }) => `    ${qualifier}${cTypeOf(dtype)} *${id}; /* ${elements} elements */`).join('\n') || '    char none;'}\n} ${name};`;

/** The size of the arena; null where no step is worth sharing. */
const arenaText = (id: string, arenaBytes: number, sharing: Sharing | null): string => {
  const stem = id.toUpperCase();
  if (sharing === null) return `/* Working memory of one run, its size and the alignment its address must have. */\n#define ${stem}_ARENA_BYTES ${arenaBytes}`;
  return `\
/*
 * Threads of one run: compile all files with -fopenmp -D${stem}_THREADS=n. The results are the same with any number; layers that are
 * too small to share are one thread's. More threads need more working memory.
 */
#ifndef ${stem}_THREADS
#define ${stem}_THREADS 1
#endif

/* Working memory of one run, its size and the alignment its address must have. */
#if ${stem}_THREADS == 1
#define ${stem}_ARENA_BYTES ${arenaBytes}
#else
#define ${stem}_ARENA_BYTES (${sharing.first} + (${stem}_THREADS - 1) * ${sharing.own})
#endif`;
};

const headerText = (id: string, { inputs, outputs }: ProgramInterface, arenaBytes: number, sharing: Sharing | null): string => `\
${generated}
#ifndef ${id.toUpperCase()}_H
#define ${id.toUpperCase()}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

${arenaText(id, arenaBytes, sharing)}
#define ${id.toUpperCase()}_ARENA_ALIGNMENT ${ARENA_ALIGNMENT}

${[...inputs.map((port) => constantsOf(id, 'INPUT', port)), ...outputs.map((port) => constantsOf(id, 'OUTPUT', port))].join('\n\n')}

${struct(`${id}_inputs`, inputs, 'const ')}

${struct(`${id}_outputs`, outputs, '')}

/*
 * Runs the program on one sample. The arena holds nothing between runs; calls on different arenas may run at the same time.
 * Inputs, outputs and the arena must not overlap. Returns 0, or 1 where a pointer is null.
 */
int ${id}_run(const ${id}_inputs *inputs, ${id}_outputs *outputs, void *arena);

#ifdef __cplusplus
}
#endif
#endif
`;

/** Byte arrays are stored as 64-bit words, which compilers read far faster than lists of single bytes. */
const storedAsWords = (constant: Buffer): boolean => bytesOf(constant.e) === 1;
const storedType = (constant: Buffer): string => (storedAsWords(constant) ? 'uint64_t' : ctypeOf(constant.e));

/** Compilers may take it that values of different types do not share memory; the arena is used again and again. */
const aliasing = `\
/* The arena is used again and again by values of different types: compile with -fno-strict-aliasing, as the Makefile does. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize ("no-strict-aliasing")
#endif`;
const signatureOf = (id: string, suffix: string, sharing: Sharing | null = null): string =>
  `int ${id}_${suffix}(${sharing === null ? '' : 'LB_PART '}const ${id}_inputs *inputs, ${id}_outputs *outputs, void *arena)`;
const callOf = (id: string, suffix: string, sharing: Sharing | null): string => `${id}_${suffix}(${sharing === null ? '' : 'LB_SELF '}inputs, outputs, arena)`;
/** The macros of shared loops, and where the scratch memory of a thread is. */
const sharingHead = (id: string, sharing: Sharing | null): string => (sharing === null ? '' : `
#if ${id.toUpperCase()}_THREADS > 1
#if !defined(_OPENMP)
#error "${id.toUpperCase()}_THREADS > 1 needs -fopenmp"
#endif
#define LB_THREADED 1
#endif
${sharingText}
#if defined(LB_THREADED)
#define LB_OWN(shared, own) (lb_thread == 0 ? (shared) : ${sharing.first} + (lb_thread - 1) * ${sharing.own} + (own))
#else
#define LB_OWN(shared, own) (shared)
#endif
`);
const functionOf = ({ name }: Variant): string => `run_${name}`;

/** The functions of one version, and its calls with checked arguments. */
const printed = (id: string, ports: ProgramInterface, { variant, lowered: { loops, placeOf } }: Version, pool: Pool, sharing: Sharing | null): { readonly declarations: string; readonly body: string } => {
  const printer = cPrinter(variant.printer, `${id}_`);
  const pointer = (buffer: Buffer): string => {
    const type = ctypeOf(buffer.e);
    const place = placeOf(buffer);
    if (place === null) return storedAsWords(buffer) ? `(const ${type} *)${id}_data${pool.numberOf(buffer)}` : `${id}_data${pool.numberOf(buffer)}`;
    if (place.memory === 'arena') return sharing !== null && place.own !== undefined ? `(${type} *)(memory + LB_OWN(${place.offset}, ${place.own}))` : `(${type} *)(memory + ${place.offset})`;
    const base = place.memory === 'input' ? `inputs->${ports.inputs[place.index].id}` : `outputs->${ports.outputs[place.index].id}`;
    return place.offset === 0 ? base : `(${base} + ${place.offset / bytesOf(buffer.e)})`;
  };
  const body = printer.body(loops, pointer, '    ', sharing !== null);
  return { declarations: printer.declarations(), body };
};
const externs = (id: string, pool: Pool, variant: Variant): string =>
  pool.all.flatMap(({ buffer, readers }, i) => (readers.includes(variant) ? [`extern const ${storedType(buffer)} ${id}_data${i}[];`] : [])).join('\n');
const runBody = (body: string, sharing: Sharing | null): string => `{
    uint8_t *memory = (uint8_t *)arena;
${sharing === null ? '' : '    LB_USED\n'}\
    (void)inputs;
    (void)outputs;
    (void)memory;
${body}
    return 0;
}`;

/** The versions that every processor runs, and the call that chooses among all. */
const mainSourceText = (id: string, ports: ProgramInterface, portable: readonly Version[], pool: Pool, sharing: Sharing | null): string => {
  const { inputs, outputs } = ports;
  const needed = ['inputs == 0', 'outputs == 0', 'arena == 0', ...inputs.map((port) => `inputs->${port.id} == 0`), ...outputs.map((port) => `outputs->${port.id} == 0`)];
  const call = (variant: Variant): string => callOf(id, functionOf(variant), sharing);
  const texts = portable.map((version) => {
    const { declarations, body } = printed(id, ports, version, pool, sharing);
    return `\
#if ${presentMacro(id, version.variant)}
${declarations}

${externs(id, pool, version.variant)}

static ${signatureOf(id, functionOf(version.variant), sharing)}
${runBody(body, sharing)}
#endif`;
  });
  const last = [fallbackVariant, portableVariant].map((variant) => `#if ${presentMacro(id, variant)}\n    return ${call(variant)};\n#endif`);
  const only = machineVariants.map((variant) => `#${variant === machineVariants[0] ? 'if' : 'elif'} defined(${onlyMacro(id, variant)})\n    return ${call(variant)};`);
  const checked = `    if (${needed.join(' || ')}) return 1;`;
  const chosen = `\
${only.join('\n')}
#elif !${id.toUpperCase()}_ONLY_ONE
${chooseVariant(machineVariants.map((variant) => ({ machine: variant.machine!, call: call(variant) })), null)}
#endif
${last.join('\n')}
}`;
  const entry = sharing === null ? `${signatureOf(id, 'run')}\n{\n${checked}\n${chosen}` : `\
static ${signatureOf(id, 'run_here', sharing)}
{
${chosen}

${signatureOf(id, 'run')}
{
${checked}
#if defined(LB_THREADED)
#pragma omp parallel num_threads(${id.toUpperCase()}_THREADS)
    (void)${id}_run_here(omp_get_thread_num(), omp_get_num_threads(), inputs, outputs, arena);
    return 0;
#else
    return ${callOf(id, 'run_here', sharing)};
#endif
}`;
  return `\
${generated}
${aliasing}
#include "${id}.h"
${sharing === null ? '' : `${sharingHead(id, sharing)}#if defined(LB_THREADED)\n#include <omp.h>\n#endif\n`}
/* The versions of this program that are compiled. Define one of ${variants.map((variant) => onlyMacro(id, variant)).join(', ')} for all files to keep that one alone. */
${presenceText(id)}

${texts.join('\n\n')}

${machineVariants.map((variant) => `#if ${presentMacro(id, variant)}\n${signatureOf(id, functionOf(variant), sharing)};\n#endif`).join('\n')}

${entry}
`;
};

const variantSourceText = (id: string, ports: ProgramInterface, version: Version, pool: Pool, sharing: Sharing | null): string => {
  const { variant } = version;
  const { declarations, body } = printed(id, ports, version, pool, sharing);
  return `\
${generated}
/* ${variant.machine!.summary} */
${aliasing}
#include "${id}.h"
${sharingHead(id, sharing)}\
${presenceText(id)}

#if ${presentMacro(id, variant)}
${machineFile(variant.machine!, `\
${declarations}

${externs(id, pool, variant)}

${signatureOf(id, functionOf(variant), sharing)};
${signatureOf(id, functionOf(variant), sharing)}
${runBody(body, sharing)}
`)}#else
typedef int ${id}_without_${variant.name};
#endif
`;
};

const weightsText = (id: string, pool: Pool): string => `\
${generated}
#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the constants are stored for little-endian machines"
#endif
#if defined(__GNUC__)
#define LB_ALIGNED __attribute__((aligned(64)))
#else
#define LB_ALIGNED
#endif

${presenceText(id)}
${pool.all.map(({ buffer, readers }, i) => {
    const text = arrayText(`${id}_data${i}`, buffer);
    return readers.length === variants.length ? text : `\n#if ${readers.map((variant) => presentMacro(id, variant)).join(' || ')}${text}#endif\n`;
  }).join('')}`;

const WORDS_PER_LINE = 6;
const NUMBERS_PER_LINE = 12;

const arrayText = (name: string, constant: Buffer): string => {
  const data = constant.data!;
  const entries: string[] = [];
  if (storedAsWords(constant)) {
    const padded = new Uint8Array(Math.ceil(data.length / 8) * 8);
    padded.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    const view = new DataView(padded.buffer);
    for (let at = 0; at < padded.length; at += 8) {
      const [low, high] = [view.getUint32(at, true), view.getUint32(at + 4, true)];
      entries.push(high === 0 ? `0x${low.toString(16)}u` : `0x${high.toString(16)}${low.toString(16).padStart(8, '0')}u`);
    }
  } else {
    for (const value of data) entries.push(numberText(value));
  }
  const perLine = storedAsWords(constant) ? WORDS_PER_LINE : NUMBERS_PER_LINE;
  const lines: string[] = [];
  for (let at = 0; at < entries.length; at += perLine) lines.push(`    ${entries.slice(at, at + perLine).join(', ')},`);
  return `
/* ${constant.name.replaceAll('*/', '* /').replaceAll('/*', '/ *')} */
extern const ${storedType(constant)} ${name}[${entries.length}];
const ${storedType(constant)} ${name}[${entries.length}] LB_ALIGNED = {
${lines.join('\n')}
};
`;
};
const numberText = (value: number | bigint): string => {
  if (typeof value === 'number') return value > 0x7fffffff ? `${value}u` : value === -0x80000000 ? '-2147483647 - 1' : String(value);
  return value === -(2n ** 63n) ? '-INT64_C(9223372036854775807) - 1' : value < 0 ? `-INT64_C(${-value})` : `INT64_C(${value})`;
};

const mainText = (id: string, { inputs, outputs }: ProgramInterface): string => `\
${generated}
/* Reads samples from standard input (each: ${inputs.map(({ id: name }) => name).join(', ')}, raw little-endian), writes ${outputs.map(({ id: name }) => name).join(', ')} of each to standard output. */
#include <stdio.h>
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#endif
#include "${id}.h"

#if defined(__GNUC__)
#define ALIGNED __attribute__((aligned(${ARENA_ALIGNMENT})))
#else
#define ALIGNED
#endif
static uint8_t arena[${id.toUpperCase()}_ARENA_BYTES + 1] ALIGNED;
${inputs.map(({ id: name, dtype, elements }) => `static ${cTypeOf(dtype)} in_${name}[${elements}];`).join('\n')}
${outputs.map(({ id: name, dtype, elements }) => `static ${cTypeOf(dtype)} out_${name}[${elements}];`).join('\n')}

/* 1: read, 0: the data ended before the first byte, -1: they ended inside the tensor. */
static int take(void *to, size_t size)
{
    size_t got = fread(to, 1, size, stdin);
    return got == size ? 1 : got == 0 ? 0 : -1;
}

int main(void)
{
    ${id}_inputs inputs;
    ${id}_outputs outputs;
#ifdef _WIN32
    _setmode(_fileno(stdin), _O_BINARY);
    _setmode(_fileno(stdout), _O_BINARY);
#endif
${inputs.length === 0 ? '    inputs.none = 0;' : inputs.map(({ id: name }) => `    inputs.${name} = in_${name};`).join('\n')}
${outputs.map(({ id: name }) => `    outputs.${name} = out_${name};`).join('\n')}
    for (;;) {
${inputs.length === 0 ? '        if (getchar() == EOF) return 0;' : inputs.map(({ id: name }, i) => (i === 0
    ? `        int got = take(in_${name}, sizeof in_${name});\n        if (got == 0) return 0;`
    : `        if (got == 1) got = take(in_${name}, sizeof in_${name});`)).join('\n')}
${inputs.length === 0 ? '' : '        if (got != 1) {\n            fputs("the input ends inside a sample\\n", stderr);\n            return 1;\n        }\n'}\
        if (${id}_run(&inputs, &outputs, arena) != 0) return 1;
${outputs.map(({ id: name }) => `        if (fwrite(out_${name}, sizeof out_${name}, 1, stdout) != 1) return 1;`).join('\n')}
    }
}
`;

const sourcesOf = (id: string, weights = true): readonly string[] =>
  [`${id}.c`, ...machineVariants.map(({ name }) => `${id}_${name}.c`), ...(weights ? [`${id}_weights.c`] : [])];
const objectsOf = (id: string, weights = true): string => sourcesOf(id, weights).map((file) => file.replace(/c$/, 'o')).join(' ');

const makefileText = (id: string, threads: boolean): string => `\
# Generated by lowbitc. "make" builds the program ${id} and the library lib${id}.a.${threads ? '\n# "make THREADS=2" makes them run on two threads.' : ''}
CFLAGS ?= -O3
CFLAGS += -std=c99 -fno-strict-aliasing
${threads ? `ifdef THREADS\nCFLAGS += -fopenmp -D${id.toUpperCase()}_THREADS=$(THREADS)\nendif\n` : ''}\

all: ${id} lib${id}.a

${id}: main.o lib${id}.a
\t$(CC) $(CFLAGS) $(LDFLAGS) -o $@ main.o lib${id}.a

lib${id}.a: ${objectsOf(id)}
\t$(AR) rcs $@ ${objectsOf(id)}

main.o ${objectsOf(id, false)}: ${id}.h

clean:
\trm -f ${id} lib${id}.a main.o ${objectsOf(id)}

.PHONY: all clean
`;

const cmakeText = (id: string, threads: boolean): string => `\
# Generated by lowbitc.
cmake_minimum_required(VERSION 3.10)
project(${id} C)
set(CMAKE_C_STANDARD 99)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

add_library(${id} STATIC ${sourcesOf(id).join(' ')})
target_include_directories(${id} PUBLIC \${CMAKE_CURRENT_SOURCE_DIR})
if(NOT MSVC)
  target_compile_options(${id} PRIVATE -fno-strict-aliasing)
endif()

${threads ? `set(${id.toUpperCase()}_THREADS 1 CACHE STRING "threads of one run")
if(${id.toUpperCase()}_THREADS GREATER 1)
  find_package(OpenMP REQUIRED COMPONENTS C)
  target_link_libraries(${id} PUBLIC OpenMP::OpenMP_C)
  target_compile_definitions(${id} PUBLIC ${id.toUpperCase()}_THREADS=\${${id.toUpperCase()}_THREADS})
endif()

` : ''}\
add_executable(${id}_main main.c)
target_link_libraries(${id}_main PRIVATE ${id})
`;
