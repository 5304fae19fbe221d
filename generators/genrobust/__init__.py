"""GenRobust (Bansal and Grover, 2023): Stable Diffusion 1.5 from prompt templates, untouched or fine-tuned on real images."""
