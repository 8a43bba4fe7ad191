/** All of the page's parts, put together for a browser. */
import { effect, signal } from "@preact/signals";
import { ApiError, describe } from "../api/errors.ts";
import { HttpApi } from "../api/http.ts";
import { ResponseSocket } from "../api/socket.ts";
import { Conversation } from "./conversation.ts";
import { Server } from "./server.ts";
import { keptSettings } from "./settings.ts";

const KEY = "densemamba.key";

export type Page = ReturnType<typeof createPage>;

export function createPage() {
  const base = new URL(".", document.baseURI);
  const key = () => sessionStorage.getItem(KEY) ?? undefined;
  const http = new HttpApi({ base, key });
  const server = new Server(http);
  /** A sentence on what went wrong last. */
  const notice = signal<string | undefined>(undefined);

  const socket = new ResponseSocket({
    url: () => {
      const url = new URL("v1/responses", base);
      url.protocol = url.protocol.replace("http", "ws");
      return url;
    },
    key,
    explain: () =>
      http.models().then(
        () => undefined,
        (error: unknown) => (error instanceof ApiError && error.status !== 0 ? error : undefined),
      ),
  });
  const settings = keptSettings(localStorage);
  const conversation = new Conversation({
    http,
    socket,
    settings,
    storage: sessionStorage,
    now: () => performance.now(),
    // A page that is not seen has no frames.
    schedule: (apply) => (document.hidden ? setTimeout(apply, 100) : requestAnimationFrame(apply)),
    newKey,
    onError: (error) => server.notice(error),
  });

  const page = {
    http,
    server,
    conversation,
    settings,
    notice,

    /** Runs an action of the user's, and says so if it fails. */
    async attempt(action: () => unknown): Promise<void> {
      notice.value = undefined;
      try {
        await action();
      } catch (error) {
        server.notice(error);
        notice.value = describe(error);
      }
    },

    get hasKey(): boolean {
      return key() !== undefined;
    },

    /** Continues from the state of a file. */
    loadFile(file: File): Promise<void> {
      return page.attempt(async () => {
        const model = settings.value.model || undefined;
        conversation.addSession(await http.importSession(file, { name: sessionName(file.name), model }));
        await server.refreshSessions();
      });
    },

    giveKey(secret: string): void {
      sessionStorage.setItem(KEY, secret);
      socket.close();
      void page.attempt(() => server.retryWithKey());
    },
  };

  const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
  void server.watch({ sleep, isSeen: () => !document.hidden });
  // Once the server can tell what the tab had.
  const stopWaiting = effect(() => {
    if (server.models.value.length === 0) return;
    queueMicrotask(() => stopWaiting());
    void page.attempt(() => conversation.restore());
  });
  return page;
}

/** Unguessable. NOTE: `crypto.randomUUID` is there only over HTTPS and on this machine. */
function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Of a file's name what a session's may have. */
function sessionName(fileName: string): string {
  const name = fileName
    .replace(/\.session$/, "")
    .replaceAll(/[^A-Za-z0-9._:-]+/g, "-")
    .replace(/^[^A-Za-z0-9]+/, "");
  return name.slice(0, 64) || "file";
}
