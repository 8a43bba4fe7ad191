/**
 * Paths as clients write them → paths of routes: without a proxy's root path, without doubled and
 * final slashes, and with the `/v1` that some base URLs lack.
 */
export type ReadPath = (path: string) => string;

/** @param routes all paths that are served, as patterns */
export function pathReader(rootPath: string, routes: readonly string[]): ReadPath {
  const versioned = new Set(routes.flatMap((route) => /^\/v1\/([^/]+)/.exec(route)?.[1] ?? []));
  return (path) => {
    const plain = path.replaceAll(/\/{2,}/g, "/").replace(/(?<=.)\/$/, "");
    const isBelow = rootPath !== "" && (plain === rootPath || plain.startsWith(`${rootPath}/`));
    const own = isBelow ? plain.slice(rootPath.length) || "/" : plain;
    return versioned.has(own.split("/", 2)[1]!) ? `/v1${own}` : own;
  };
}
