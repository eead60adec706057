"""The stages that make an AltCLIP and an AltDiffusion, one file each."""
