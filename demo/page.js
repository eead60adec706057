// Ctrl+Enter starts. A picture that is dropped beside every place for uploads gives its settings back, and so do settings
// that are pasted as a prompt. And screen readers are told what is seen: a thumbnail's caption, the words on an upload,
// that an empty gallery is a picture of one.
() => {
  const starts = { prompt: "start", negative: "start", "change-prompt": "change-start",
    "change-negative": "change-start", prompts: "rank" };
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    const box = event.target.closest?.("[id]:has(textarea, input)");
    const start = box && starts[box.id] && document.getElementById(starts[box.id]);
    if (!start || start.disabled) return;
    event.preventDefault();
    event.target.blur(); // so that Gradio has what was typed
    start.click();
  });
  new MutationObserver(() => {
    for (const each of document.querySelectorAll(".thumbnail-item[aria-label]:has(.caption-label), [data-upload-density][aria-label], button[aria-label]:has([data-upload-density])"))
      each.removeAttribute("aria-label");
    for (const each of document.querySelectorAll("div.empty[aria-label]:not([role])")) each.setAttribute("role", "img");
  }).observe(document.body, { childList: true, subtree: true });
  const input = () => document.querySelector("#restore input[type=file]");
  const isOurs = (event) =>
    event.dataTransfer?.types.includes("Files") &&
    !event.target.closest?.("#uploads, #change-picture") && input();
  document.addEventListener("dragover", (event) => { if (isOurs(event)) event.preventDefault(); });
  const restore = (file) => {
    const files = new DataTransfer();
    files.items.add(file);
    input().files = files.files;
    input().dispatchEvent(new Event("change", { bubbles: true }));
  };
  document.addEventListener("drop", (event) => {
    if (!isOurs(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files.length) restore(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const text = event.clipboardData?.getData("text") ?? "";
    if (!event.target.closest?.("#prompt") || !/^Steps: \d+, /m.test(text) || !input()) return;
    event.preventDefault();
    restore(new File([text], "settings.txt", { type: "text/plain" }));
  });
}
