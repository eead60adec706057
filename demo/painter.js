// Paint on a picture. The value is {picture: its address, mask: a PNG as a data URL, opaque where there is paint}.
// (Gradio's own editor needs WebGL, and sends its picture anew whenever anything on the page changes.)
const LONGEST = 512;
const canvas = element.querySelector("canvas"), shown = canvas.getContext("2d");
const brush = element.querySelector("input[type=range]"), eraser = element.querySelector("input[type=checkbox]");
const paint = document.createElement("canvas"), mask = paint.getContext("2d");
const picture = new Image();
let address = "", last = null, painted = false;

function show() {
  shown.clearRect(0, 0, canvas.width, canvas.height);
  shown.globalAlpha = 1;
  shown.drawImage(picture, 0, 0, canvas.width, canvas.height);
  shown.globalAlpha = 0.65;
  shown.drawImage(paint, 0, 0);
}

function clear() {
  mask.clearRect(0, 0, paint.width, paint.height);
  painted = false;
}

function tell() {
  props.value = { picture: address, mask: painted ? paint.toDataURL("image/png") : "" };
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale, scale];
}

function stroke(event) {
  const [x, y, scale] = place(event);
  mask.globalCompositeOperation = eraser.checked ? "destination-out" : "source-over";
  mask.strokeStyle = "#e11d48";
  mask.lineCap = "round";
  mask.lineWidth = brush.value * scale;
  mask.beginPath();
  mask.moveTo(...(last ?? [x, y]));
  mask.lineTo(x, y + (last ? 0 : 0.01));
  mask.stroke();
  last = [x, y];
  painted ||= !eraser.checked;
  show();
}

picture.onload = () => {
  const scale = LONGEST / Math.max(picture.naturalWidth, picture.naturalHeight);
  canvas.width = paint.width = Math.round(picture.naturalWidth * scale);
  canvas.height = paint.height = Math.round(picture.naturalHeight * scale);
  element.querySelector(".painter").classList.add("ready");
  clear();
  show();
};
canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); stroke(event); });
canvas.addEventListener("pointermove", (event) => { if (last) stroke(event); });
for (const end of ["pointerup", "pointercancel"])
  canvas.addEventListener(end, () => { if (last) { last = null; tell(); } });
element.querySelector("button").addEventListener("click", () => { clear(); show(); tell(); });

function look() {
  if ((props.value?.picture ?? "") === address) return;
  address = props.value?.picture ?? "";
  element.querySelector(".painter").classList.remove("ready");
  if (address) picture.src = address;
}
watch("value", look);
look();
