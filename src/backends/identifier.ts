/**
 * The rule that turns names of the model into identifiers of C, C++ and TypeScript:
 *
 * 1. every run of characters other than ASCII letters and digits becomes one underscore; underscores at the ends are dropped;
 * 2. a result that is empty, starts with a digit, or is a keyword of one of the languages gets the prefix `t_`;
 * 3. within one list, a name that equals an earlier one (upper and lower case counted as equal, since macros are upper case) gets
 *    the suffix `_2`, `_3`, ….
 *
 * So no identifier holds a double underscore or begins with one, which C and C++ reserve.
 */
const keywords: ReadonlySet<string> = new Set((
  // C99, C11, C23
  'auto break case char const continue default do double else enum extern float for goto if inline int long register restrict return ' +
  'short signed sizeof static struct switch typedef union unsigned void volatile while constexpr nullptr static_assert thread_local ' +
  'typeof typeof_unqual alignas alignof bool true false asm ' +
  // C++20
  'and and_eq bitand bitor catch char8_t char16_t char32_t class co_await co_return co_yield compl concept consteval constinit ' +
  'const_cast decltype delete dynamic_cast explicit export friend mutable namespace new noexcept not not_eq operator or or_eq private ' +
  'protected public reinterpret_cast requires static_cast template this throw try typeid typename using virtual wchar_t xor xor_eq ' +
  // ECMAScript and TypeScript
  'arguments await debugger eval extends finally function implements import in instanceof interface let null of package super undefined ' +
  'var with yield any unknown never number string symbol object type declare abstract as constructor prototype'
).split(' '));

/** Steps 1 and 2 for one name. */
export const identifier = (name: string): string => {
  const text = name.replace(/[^A-Za-z0-9]+/g, '_').replace(/^_|_$/g, '');
  return text === '' || /^[0-9]/.test(text) || keywords.has(text) ? `t_${text}`.replace(/_$/, '') : text;
};

/** The identifiers of a list of names: steps 1 to 3, in order. */
export const identifiers = (names: readonly string[]): readonly string[] => {
  const taken = new Set<string>();
  return names.map((name) => {
    const stem = identifier(name);
    let text = stem;
    for (let n = 2; taken.has(text.toLowerCase()); n++) text = `${stem}_${n}`;
    taken.add(text.toLowerCase());
    return text;
  });
};
