/**
 * Calls each, whichever fail: one thing that cannot be given back must not keep the rest.
 * @throws the first failure, when all have been called.
 */
export function callEach(calls: Iterable<() => unknown>): void {
  let failure: { readonly error: unknown } | undefined;
  for (const call of calls) {
    try {
      call();
    } catch (error) {
      failure ??= { error };
    }
  }
  if (failure !== undefined) throw failure.error;
}
