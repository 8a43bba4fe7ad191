/** The page as a whole: what it is at a time, and its panels. On a phone one panel is seen at once. */
import { type Signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Page } from "../state/page.ts";
import { Chat } from "./chat.tsx";
import { FiguresPanel } from "./figures.tsx";
import { KeyDialog } from "./key-dialog.tsx";
import { SettingsPanel } from "./settings.tsx";
import { StatesPanel } from "./states.tsx";
import { ServerStatusLine } from "./status.tsx";

type Panel = "chat" | "states" | "settings";

const PANELS: readonly (readonly [Panel, string])[] = [
  ["states", "States"],
  ["chat", "Chat"],
  ["settings", "Settings"],
];

export function App({ page }: { readonly page: Page }) {
  const panel = useSignal<Panel>("chat");
  const { server, notice } = page;
  const isOver = useFileDrop((file) => {
    panel.value = "chat";
    void page.loadFile(file);
  });
  return (
    <div class="page" data-panel={panel.value} data-over={isOver.value}>
      <header>
        <h1>densemamba</h1>
        <ServerStatusLine server={server} />
        <PanelTabs panel={panel} />
      </header>
      {notice.value !== undefined && (
        <p class="notice" role="alert">
          <span>{notice.value}</span>
          <button type="button" onClick={() => (notice.value = undefined)}>
            Close
          </button>
        </p>
      )}
      <StatesPanel page={page} onOpen={() => (panel.value = "chat")} />
      <Chat page={page} />
      <aside id="settings" class="panel" aria-label="Settings and figures">
        <FiguresPanel page={page} />
        <SettingsPanel page={page} />
      </aside>
      {server.needsKey.value && <KeyDialog isRefused={page.hasKey} onKey={page.giveKey} />}
    </div>
  );
}

function PanelTabs({ panel }: { readonly panel: Signal<Panel> }) {
  return (
    <nav class="tabs" aria-label="Panels">
      {PANELS.map(([name, label]) => (
        <button
          key={name}
          type="button"
          aria-current={panel.value === name ? "true" : undefined}
          onClick={() => (panel.value = name)}
        >
          {label}
        </button>
      ))}
    </nav>
  );
}

/** Takes files that are dropped anywhere. @returns whether one is over the page */
function useFileDrop(onFile: (file: File) => void): Signal<boolean> {
  const isOver = useSignal(false);
  useEffect(() => {
    const onDrag = (event: DragEvent) => {
      event.preventDefault();
      isOver.value = event.type === "dragover";
      const file = event.type === "drop" ? event.dataTransfer?.files[0] : undefined;
      if (file !== undefined) onFile(file);
    };
    const types = ["dragover", "dragleave", "drop"] as const;
    for (const type of types) document.addEventListener(type, onDrag);
    return () => {
      for (const type of types) document.removeEventListener(type, onDrag);
    };
  }, []);
  return isOver;
}
