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

/**
 * The same after a failure that is going to be thrown: what fails here as well is not to hide it.
 */
export function callEachQuietly(calls: Iterable<() => unknown>): void {
  try {
    callEach(calls);
  } catch {
    // The first failure says more.
  }
}
