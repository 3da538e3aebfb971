// A picture of the camera. Browsers open it on this machine or over https alone.

const dialog = document.getElementById("camera");
const video = dialog.querySelector("video");
const button = (id) => document.getElementById(id);

export const hasCamera = () => Boolean(navigator.mediaDevices?.getUserMedia);

/** A JPEG, or null if the visitor cancels; fails if there is no camera or it is not allowed. */
export async function takePicture() {
  let facing = "environment";
  const open = async () => {
    video.srcObject = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: facing, width: { ideal: 1280 }, height: { ideal: 960 } },
    });
  };
  const close = () => {
    video.srcObject?.getTracks().forEach((track) => track.stop()); // its light goes out
    video.srcObject = null;
  };
  await open();
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((d) => d.kind === "videoinput");
  button("turn").hidden = cameras.length < 2;
  dialog.showModal();
  const picture = await new Promise((resolve) => {
    button("take").onclick = () => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
      canvas.getContext("2d").drawImage(video, 0, 0);
      canvas.toBlob(resolve, "image/jpeg", 0.95);
    };
    button("turn").onclick = async () => {
      close();
      facing = facing === "user" ? "environment" : "user";
      await open().catch(() => resolve(null));
    };
    button("cancel").onclick = dialog.oncancel = () => resolve(null);
  });
  close();
  dialog.close();
  return picture;
}
