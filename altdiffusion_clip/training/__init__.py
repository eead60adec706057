"""The training stages of AltCLIP and AltDiffusion, one file each."""
