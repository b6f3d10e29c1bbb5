// The viewer of report.html: orbit, zoom and toggle meshes and point clouds with plain WebGL.
"use strict";
(() => {
  const section = document.querySelector(".view3d");
  const canvas = section.querySelector("canvas");
  const data = JSON.parse(document.getElementById("view3d-data").textContent);
  const gl = canvas.getContext("webgl", { antialias: true, alpha: true, premultipliedAlpha: true });
  if (!gl) {
    section.querySelector(".help").textContent = "This browser has no WebGL: see the pictures below.";
    section.dataset.state = "no WebGL";
    return;
  }
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const unit = (a) => a.map((x) => x / (Math.hypot(...a) || 1));

  const vertexShader = `
    attribute vec3 place, normal;
    uniform mat3 view;         // rows: right, up, towards the eye, in RAS+
    uniform vec3 centre;       // m, in the middle of the canvas
    uniform vec2 scale, shift; // clip units a metre, clip units
    uniform float size, depth;
    varying vec3 facing;
    void main() {
      vec3 seen = view * (place - centre);
      facing = view * normal;
      gl_Position = vec4(seen.xy * scale + shift, -seen.z * depth, 1.0);
      gl_PointSize = size;
    }`;
  const fragmentShader = `
    precision mediump float;
    varying vec3 facing;
    uniform vec4 colour;
    uniform float lit;
    void main() {
      vec3 n = normalize(facing);
      float key = max(dot(n, normalize(vec3(-0.45, 0.65, 0.75))), 0.0);
      float fill = max(dot(n, normalize(vec3(0.8, 0.1, 0.5))), 0.0);
      vec3 half_way = normalize(normalize(vec3(-0.45, 0.65, 0.75)) + vec3(0.0, 0.0, 1.0));
      float gleam = 0.18 * pow(max(dot(n, half_way), 0.0), 28.0);
      float light = mix(1.0, 0.38 + 0.62 * key + 0.2 * fill, lit);
      vec3 linear = pow(colour.rgb, vec3(2.2)) * light + gleam * lit;
      gl_FragColor = vec4(pow(linear, vec3(1.0 / 2.2)) * colour.a, colour.a);
    }`;
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertexShader], [gl.FRAGMENT_SHADER, fragmentShader]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  const at = (name) => gl.getUniformLocation(program, name);
  const uniforms = Object.fromEntries(["view", "centre", "scale", "shift", "size", "depth", "colour", "lit"].map((n) => [n, at(n)]));
  const place = gl.getAttribLocation(program, "place");
  const normal = gl.getAttribLocation(program, "normal");

  const buffer = (target, array) => {
    const made = gl.createBuffer();
    gl.bindBuffer(target, made);
    gl.bufferData(target, array, gl.STATIC_DRAW);
    return made;
  };
  const bodies = data.bodies.map((body) => {
    const steps = new Uint16Array(bytes(body.points));
    const points = new Float32Array(steps.length);
    for (let i = 0; i < steps.length; i++) {
      const axis = i % 3;
      points[i] = data.low[axis] + (steps[i] / 65535) * (data.high[axis] - data.low[axis]);
    }
    const faces = new Uint16Array(bytes(body.faces));
    const normals = new Float32Array(points.length);
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = [0, 1, 2].map((k) => Array.from(points.subarray(3 * faces[f + k], 3 * faces[f + k] + 3)));
      const n = cross([0, 1, 2].map((k) => b[k] - a[k]), [0, 1, 2].map((k) => c[k] - a[k]));
      for (let k = 0; k < 3; k++) for (let j = 0; j < 3; j++) normals[3 * faces[f + k] + j] += n[j];
    }
    for (let v = 0; v < normals.length; v += 3) {
      const length = Math.hypot(normals[v], normals[v + 1], normals[v + 2]) || 1;
      for (let j = 0; j < 3; j++) normals[v + j] /= length;
    }
    return {
      ...body,
      points: buffer(gl.ARRAY_BUFFER, points),
      normals: buffer(gl.ARRAY_BUFFER, normals),
      faces: buffer(gl.ELEMENT_ARRAY_BUFFER, faces),
      corners: faces.length,
      count: steps.length / 3,
    };
  });

  // Turntable: `turn` about S from the front (the patient's right is on the left), `tilt` towards the head.
  let turn, tilt, zoom, shift;
  const home = () => { turn = 0.45; tilt = 0.22; zoom = 1.3; shift = [0.16, 0]; };
  home();
  const centre = [0, 1, 2].map((k) => (data.low[k] + data.high[k]) / 2);
  const reach = Math.hypot(...[0, 1, 2].map((k) => data.high[k] - data.low[k])) / 2;
  const axes = () => {
    const towards = [-Math.sin(turn) * Math.cos(tilt), Math.cos(turn) * Math.cos(tilt), Math.sin(tilt)];
    const right = unit(cross([0, 0, 1], towards));
    return [right, cross(towards, right), towards];
  };

  const draw = () => {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(canvas.clientHeight * ratio);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.depthMask(true);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.enable(gl.CULL_FACE);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    const [right, up, towards] = axes();
    const tall = (0.95 * zoom) / reach;
    gl.uniformMatrix3fv(uniforms.view, false, [0, 1, 2].flatMap((k) => [right[k], up[k], towards[k]]));
    gl.uniform3fv(uniforms.centre, centre);
    gl.uniform2f(uniforms.scale, (tall * canvas.height) / canvas.width, tall);
    gl.uniform2fv(uniforms.shift, shift);
    gl.uniform1f(uniforms.depth, 0.95 / reach);
    gl.uniform1f(uniforms.size, Math.max(1.5, 0.0016 * tall * canvas.height * 0.5));
    const shown = bodies.filter((body) => body.shown);
    for (const glass of [false, true]) {
      gl.depthMask(!glass);
      for (const body of shown.filter((b) => b.alpha < 1 === glass)) {
        gl.bindBuffer(gl.ARRAY_BUFFER, body.points);
        gl.enableVertexAttribArray(place);
        gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
        gl.bindBuffer(gl.ARRAY_BUFFER, body.normals);
        gl.enableVertexAttribArray(normal);
        gl.vertexAttribPointer(normal, 3, gl.FLOAT, false, 0, 0);
        gl.uniform4f(uniforms.colour, ...body.colour.map((c) => c / 255), body.alpha);
        gl.uniform1f(uniforms.lit, body.corners ? 1 : 0);
        if (body.corners) {
          gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, body.faces);
          gl.drawElements(gl.TRIANGLES, body.corners, gl.UNSIGNED_SHORT, 0);
        } else {
          gl.drawArrays(gl.POINTS, 0, body.count);
        }
      }
    }
    const letters = [["R", [1, 0, 0], "#ff6b6b"], ["L", [-1, 0, 0], "#ff6b6b"], ["A", [0, 1, 0], "#6bdc7d"],
      ["P", [0, -1, 0], "#6bdc7d"], ["S", [0, 0, 1], "#6fa8ff"], ["I", [0, 0, -1], "#6fa8ff"]];
    section.querySelector(".letters").innerHTML = letters
      .filter(([, direction]) => Math.hypot(dot(right, direction), dot(up, direction)) > 0.5)
      .map(([letter, direction, colour]) => {
        const flat = Math.hypot(dot(right, direction), dot(up, direction));
        const x = 58 + (38 * dot(right, direction)) / flat * Math.min(1, canvas.height / canvas.width);
        const y = 50 - (46 * dot(up, direction)) / flat;
        return `<span style="left:${x}%;top:${y}%;color:${colour}">${letter}</span>`;
      })
      .join("");
    section.dataset.state = gl.getError() ? "error" : "drawn";
  };
  let waiting = false;
  const redraw = () => {
    if (!waiting) requestAnimationFrame(() => { waiting = false; draw(); });
    waiting = true;
  };

  let last = null;
  canvas.addEventListener("pointerdown", (event) => { last = event; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { last = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const [dx, dy] = [event.clientX - last.clientX, event.clientY - last.clientY];
    if (event.shiftKey || event.buttons === 2) {
      shift = [shift[0] + (2 * dx) / canvas.clientWidth, shift[1] - (2 * dy) / canvas.clientHeight];
    } else {
      turn -= dx * 0.008;
      tilt = Math.max(-1.5, Math.min(1.5, tilt + dy * 0.008));
    }
    last = event;
    redraw();
  });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => { home(); redraw(); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom = Math.max(0.3, Math.min(12, zoom * Math.exp(-event.deltaY * 0.0012)));
    redraw();
  }, { passive: false });
  section.querySelectorAll("input").forEach((box) => box.addEventListener("change", () => {
    bodies[Number(box.dataset.body)].shown = box.checked;
    redraw();
  }));
  window.addEventListener("resize", redraw);
  draw();
})();
