// A picture that is dropped beside every place for uploads gives its settings back.
() => {
  const input = () => document.querySelector("#restore input[type=file]");
  const isOurs = (event) =>
    event.dataTransfer?.types.includes("Files") &&
    !event.target.closest?.("#uploads, #change-picture") && input();
  document.addEventListener("dragover", (event) => { if (isOurs(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!isOurs(event)) return;
    event.preventDefault();
    const files = new DataTransfer();
    if (event.dataTransfer.files.length) files.items.add(event.dataTransfer.files[0]);
    input().files = files.files;
    input().dispatchEvent(new Event("change", { bubbles: true }));
  });
}
