/**
 * Kubernetes describes services to every pod in environment variables: those of a service named `densemamba` begin as ours
 * do, and `DENSEMAMBA_PORT` is one of ours. Docker's `--link` does the same.
 */

const NAME = /_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:ADDR|PORT|PROTO))?)$/;
const ADDRESS = /^(?:tcp|udp|sctp):\/\//;

export function isServiceLink(name: string, value: string | undefined): boolean {
  return NAME.test(name) || (name.endsWith("_PORT") && ADDRESS.test(value ?? ""));
}
