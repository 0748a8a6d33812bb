import { describe, expect, it } from 'vitest';
import { add, at, broadcast, buffer, call, fn, index, literal, load, loop, parameter, program, set, shr, store, variable } from '../../src/loops/build.ts';
import { cPrinter, portable } from '../../src/backends/c/print.ts';
import { interpret } from '../../src/loops/interpret.ts';
import { hasCompiler, printC, runC } from '../loops/c-run.ts';
import { firstDifference, randomCase } from '../loops/random-programs.ts';
import { samples, scalar } from '../loops/samples.ts';

const strict = ['-Wall', '-Wextra', '-Wconversion', '-Wsign-conversion', '-pedantic', '-Werror'];
/** What random programs do and people do not: variables nobody reads, comparisons that are always true. */
const odd = ['-Wno-unused-variable', '-Wno-unused-but-set-variable', '-Wno-type-limits', '-Wno-tautological-compare', '-Wno-unknown-warning-option', '-Wno-sign-conversion'];

describe.skipIf(!hasCompiler)('C equals the interpreter (needs cc)', () => {
  for (const [title, flags, first] of [['optimised, no warning', ['-O2', ...strict, ...odd], 0], ['with undefined behaviour trapped', ['-O1', '-fsanitize=undefined', '-fno-sanitize-recover=all'], 5000]] as const) {
    it(`on random programs, ${title}`, () => {
      const cases = Array.from({ length: 80 }, (_, n) => randomCase(first + n, 1 + (n % 8), false, `run${n}`));
      runC(cases, flags).forEach((results, n) => {
        const { program, memory } = cases[n];
        expect(firstDifference(program, interpret(program, memory), (b) => results.get(b)!), `seed ${first + n}`).toBeNull();
      });
    }, 240_000);
  }

  it('on hand-written kernels, without a warning', () => {
    const all = samples(scalar).map((sample, n) => ({ ...sample, program: { ...sample.program, name: `${sample.program.name}${n}` } }));
    runC(all, ['-O2', ...strict]).forEach((results, n) => { expect(results.get(all[n].out)).toEqual(all[n].expected); });
  }, 240_000);
});

describe('C text', () => {
  const [x, y] = [buffer('x', 'i8', 8, 'in'), buffer('y', 'i32', 4, 'out')];
  const [i, s, total] = [index('i', 4), parameter('s', 'i32', 0, 7), variable('total', 'i32')];
  const sums = fn('block.0/fc1', { buffers: [x, y], values: [s], note: 'sums of /block.0/fc1 */' }, [
    set(total, 0), loop(i, [set(total, add(total, load(at(x, 1, [i, 1]), 1, 'i32')), { pin: true })]), store(at(y, 2), shr(total, s))]);
  const [a, b] = [buffer('input', 'u8', 16, 'in'), buffer('output', 'i32', 8, 'out')];
  const n = index('n', 2);
  const run = program('run', [a, b], [loop(n, [call(sums, [at(a, 0, [n, 8]), at(b, 4)], [], [3], '/block.0/fc1')])]);

  it('is readable: names of the model, const, restrict, declarations where values begin', () => {
    const printer = cPrinter(portable, 'net_');
    const body = printer.body(run, (buffer) => (buffer === a ? 'in->image' : '((int32_t *)(arena + 64))'));
    expect(body).toBe([
      '    for (int32_t n = 0; n < 2; n++) {',
      '        /* /block.0/fc1 */',
      '        net_block_0_fc1((const int8_t *)(in->image + 8 * n), ((int32_t *)(arena + 64)) + 4, 3);',
      '    }'].join('\n'));
    expect(printer.declarations()).toContain([
      '/* sums of /block.0/fc1 * / */',
      'static void net_block_0_fc1(const int8_t *restrict x, int32_t *restrict y, int32_t s)',
      '{',
      '    int32_t total = 0;',
      '    for (int32_t i = 0; i < 4; i++) {',
      '        total += x[i + 1];',
      '        LB_PIN("+r", total);',
      '    }',
      '    y[2] = total >> s;',
      '}'].join('\n'));
  });

  it('keeps names apart: of functions, of the language, of helpers, of the places of buffers', () => {
    const [p, int8, lb] = [buffer('run', 'i32', 4, 'out'), variable('int8_t', 'i32'), variable('LB_PIN', 'i32')];
    const callee = fn('run', { buffers: [p] }, [set(int8, 1), set(lb, add(int8, 1), { pin: true }), store(at(p), lb)]);
    const arena = index('arena', 2);
    const same = program('run', [y], [loop(arena, [call(callee, [y])])]);
    expect(printC([same])).toMatch(/static void run_2\(int32_t \*restrict run_3\)\n\{\n {4}int32_t int8_t_2 = 1;\n {4}int32_t v_PIN = int8_t_2 \+ 1;/);
    expect(cPrinter(portable).body(same, () => 'arena')).toContain('int32_t arena_2 = 0;');
  });

  it('uses no library, no float, no division', () => {
    const text = printC(samples(scalar).map(({ program }, k) => ({ ...program, name: `${program.name}${k}` })));
    expect([...text.matchAll(/#include (\S+)/g)].map(([, file]) => file)).toEqual(['<limits.h>', '<stdint.h>']);
    const code = text.replaceAll(/\/\*.*?\*\//gs, '');
    expect(code).not.toMatch(/\b(float|double|malloc|mem\w+)\b|[^/]\/[^/]|%/);
  });

  it('prints vectors only from a table', () => {
    const wide = program('wide', [y], [store(at(y), literal(0, 'i32', 4))]);
    expect(() => printC([wide])).toThrow('portable C has no i32x4');
    const text = printC([wide], {
      name: 'example',
      vectors: {
        includes: ['example.h'], register: 'x', type: () => 'v4i',
        expr: (e) => (e.op === 'const' ? `v4i_splat(${e.value})` : 'v4i_other()'),
        store: (to, value, context) => `v4i_store(${context.pointer(to)}, ${context.expr(value)})`,
      },
    });
    expect(text).toContain('    v4i_store(y, v4i_splat(0));');
    expect(text).toContain('#include <example.h>');
    expect(() => broadcast(literal(0, 'i32', 4), 4)).toThrow('broadcast takes a scalar');
  });
});
