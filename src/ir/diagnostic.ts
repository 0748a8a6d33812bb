/** What went wrong, as data. The texts are written in `errors.ts`, one function a code. */
export interface Diagnostic {
  readonly code: `LB${string}`;
  readonly severity: 'error' | 'warning';
  /** what is wrong, in the user's words, names quoted */
  readonly message: string;
  /** ONNX node, op, value, type; or line and column of a text */
  readonly at: string | null;
  /** pass and step; filled in by the pipeline */
  readonly within: string | null;
  /** something to type or change */
  readonly help: string | null;
}

/** Why the command ends; each kind has its exit code. */
export type FailureKind = 'model' | 'usage' | 'mismatch' | 'budget' | 'unsupported' | 'internal';
export const exitCodes: Readonly<Record<FailureKind, number>> = { model: 1, usage: 2, mismatch: 3, budget: 4, unsupported: 5, internal: 70 };

/** The only exception that the compiler throws on purpose. */
export class CompileError extends Error {
  readonly diagnostics: readonly Diagnostic[];
  readonly kind: FailureKind;
  constructor(diagnostics: Diagnostic | readonly Diagnostic[], kind: FailureKind = 'model') {
    const list = Array.isArray(diagnostics) ? (diagnostics as readonly Diagnostic[]) : [diagnostics as Diagnostic];
    super(list.map(formatDiagnostic).join('\n'));
    this.name = 'CompileError';
    this.diagnostics = list;
    this.kind = kind;
  }
}

export const formatDiagnostic = ({ code, severity, message, at, within, help }: Diagnostic): string =>
  [`${severity} ${code}: ${message}`, at && `  at  ${at}`, within && `  in  ${within}`, help && `  help: ${help}`]
    .filter(Boolean).join('\n');

/** A one-line value from outside, quoted for a message: control characters escaped, long text cut. */
export const quoteName = (text: string): string => {
  const clean = text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
  return `"${clean.length > 120 ? `${clean.slice(0, 117)}...` : clean}"`;
};
