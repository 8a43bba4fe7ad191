/** Asks for the server's API key, which the tab keeps until it is closed. */
import { useEffect, useRef } from "preact/hooks";

interface KeyDialogProps {
  /** A key has been given, and refused. */
  readonly isRefused: boolean;
  readonly onKey: (key: string) => void;
}

export function KeyDialog({ isRefused, onKey }: KeyDialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => dialog.current!.showModal(), []);
  const submit = (event: Event) => {
    event.preventDefault();
    const key = input.current!.value.trim();
    if (key !== "") onKey(key);
  };
  return (
    <dialog ref={dialog} aria-labelledby="key-title" onCancel={(event) => event.preventDefault()}>
      <form onSubmit={submit}>
        <h2 id="key-title">This server needs an API key</h2>
        {isRefused && (
          <p class="error" role="alert">
            The key is not one of this server's.
          </p>
        )}
        <p>It stays in this tab, and is sent to this server only.</p>
        <label>
          API key
          <input ref={input} type="password" autocomplete="off" required />
        </label>
        <button type="submit" class="primary">
          Use this key
        </button>
      </form>
    </dialog>
  );
}
