"""Diffusers pipelines, installed as `altdiffusion_clip.pipelines`."""
