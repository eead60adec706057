"""The demo: draw and rank in a browser, in English and Chinese. Installed as `altdiffusion_clip.demo`."""
