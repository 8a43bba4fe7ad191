/** The conversation up to the current turn, and where the next message is written. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Page } from "../state/page.ts";
import { TurnView } from "./turn.tsx";

export function Chat({ page }: { readonly page: Page }) {
  const { conversation } = page;
  const path = conversation.path.value;
  const list = useRef<HTMLOListElement>(null);
  usePinnedToEnd(list);
  return (
    <main id="chat" aria-label="Chat">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard. */}
      <section class="scroll" tabIndex={0} aria-label="Conversation">
        {path.length === 0 && (
          <p class="empty">
            Say something. Every answer is a state of the model, of the same size however long the conversation is:
            continue from any of them, name it, or download it.
          </p>
        )}
        <ol class="turns" ref={list}>
          {path.map((turn, index) => (
            <TurnView key={turn.key} page={page} turn={turn} isLast={index === path.length - 1} />
          ))}
        </ol>
      </section>
      <Composer page={page} />
      <p class="hidden" role="status">
        {path.length > 0 && (conversation.isRunning ? "The model is answering." : "The answer is complete.")}
      </p>
    </main>
  );
}

/** Follows an answer while its end is in sight. */
function usePinnedToEnd(list: { readonly current: HTMLElement | null }): void {
  useEffect(() => {
    const content = list.current!;
    const scroll = content.parentElement!;
    let isPinned = true;
    const onScroll = () => {
      isPinned = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 40;
    };
    const observer = new ResizeObserver(() => {
      if (isPinned) scroll.scrollTop = scroll.scrollHeight;
    });
    observer.observe(content);
    scroll.addEventListener("scroll", onScroll, { passive: true });
    return () => {
      observer.disconnect();
      scroll.removeEventListener("scroll", onScroll);
    };
  }, [list]);
}

function Composer({ page }: { readonly page: Page }) {
  const { conversation, attempt } = page;
  const text = useSignal("");
  const { isRunning } = conversation;
  const send = () =>
    attempt(() => {
      if (text.value.trim() === "" || conversation.isRunning) return;
      conversation.send(text.value);
      text.value = "";
    });
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <label class="hidden" for="message">
        Message
      </label>
      <textarea
        id="message"
        rows={2}
        placeholder="Message"
        value={text.value}
        onInput={({ currentTarget }) => {
          text.value = currentTarget.value;
        }}
        onKeyDown={(event) => {
          if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          void send();
        }}
      />
      {isRunning ? (
        <button key="stop" type="button" onClick={() => conversation.stop()}>
          Stop
        </button>
      ) : (
        <button key="send" type="submit" class="primary" disabled={text.value.trim() === ""}>
          Send
        </button>
      )}
      <button
        type="button"
        disabled={conversation.current.value === undefined}
        onClick={() => conversation.goOnFrom(undefined)}
      >
        New
      </button>
    </form>
  );
}
