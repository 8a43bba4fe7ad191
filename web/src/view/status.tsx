/** Whether the server answers, in words. */
import type { Server, ServerStatus } from "../state/server.ts";

const WORDS: Readonly<Record<ServerStatus, string>> = {
  unknown: "Connecting",
  ready: "Ready",
  sleeping: "Ready: the first answer loads the model",
  starting: "Starting",
  recovering: "Recovering from a fault",
  stopping: "Stopping",
  closed: "Stopped",
  failed: "The model could not be loaded",
  store_lost: "The folder for states is lost",
  unreachable: "Not reachable",
};

export function ServerStatusLine({ server }: { readonly server: Server }) {
  const { status, statusError, models, isReady } = server;
  const model = models.value[0]?.id;
  return (
    <p class="server" role="status" data-ready={isReady.value}>
      {model !== undefined && <span class="model">{model}</span>}
      <span class="state" title={statusError.value}>
        {WORDS[status.value] ?? status.value}
      </span>
    </p>
  );
}
