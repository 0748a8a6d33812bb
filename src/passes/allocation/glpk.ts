/**
 * GLPK as an engine, reached by dynamic import. Facts of glpk.js that this file stands on: presolving must stay on for integer
 * programmes, a stop by gap and one by time both read FEAS, and on failure all variables are 0. Rows are scaled to 1.
 */
import type { Engine } from './solver.ts';
import type { Assignment, Programme } from './programme.ts';

const variable = (g: number, c: number): string => `x${g}_${c}`;

export const glpkEngine = async (): Promise<Engine> => {
  const { default: load } = await import('glpk.js/node');
  const glpk = await load();
  const model = ({ groups, limits }: Programme, whole: boolean) => {
    const all = groups.flatMap(({ choices }, g) => choices.map((choice, c) => ({ name: variable(g, c), choice })));
    return {
      name: 'bits',
      objective: { direction: glpk.GLP_MIN, name: 'loss', vars: all.map(({ name, choice }) => ({ name, coef: choice.loss })) },
      subjectTo: [
        ...groups.map(({ choices }, g) => ({
          name: `one${g}`, vars: choices.map((_, c) => ({ name: variable(g, c), coef: 1 })), bnds: { type: glpk.GLP_FX, lb: 1, ub: 1 },
        })),
        ...limits.map(({ most }, r) => {
          const unit = Math.abs(most) || 1;
          return { name: `limit${r}`, vars: all.map(({ name, choice }) => ({ name, coef: choice.usage[r] / unit })), bnds: { type: glpk.GLP_UP, lb: 0, ub: most / unit } };
        }),
      ],
      ...(whole ? { binaries: all.map(({ name }) => name) }
        : { bounds: all.map(({ name }) => ({ name, type: glpk.GLP_DB, lb: 0, ub: 1 })) }),
    };
  };
  return {
    name: 'glpk.js',
    solve: (programme, { gap, seconds }) => {
      const start = performance.now();
      const { result } = glpk.solve(model(programme, true), { msglev: glpk.GLP_MSG_OFF, presol: true, mipgap: gap, tmlim: seconds });
      const answered = result.status === glpk.GLP_OPT || result.status === glpk.GLP_FEAS;
      if (!answered) return Promise.resolve(null);
      const assignment: Assignment = programme.groups.map(({ choices }, g) => choices.findIndex((_, c) => result.vars[variable(g, c)] > 0.5));
      return Promise.resolve({ assignment, provenGap: result.status === glpk.GLP_OPT ? 0 : null, stopped: result.status !== glpk.GLP_OPT && performance.now() - start > 900 * seconds });
    },
    relaxed: (programme) => {
      const { result } = glpk.solve(model(programme, false), { msglev: glpk.GLP_MSG_OFF, presol: false });
      return Promise.resolve(result.status === glpk.GLP_OPT ? { loss: result.z } : null);
    },
  };
};
