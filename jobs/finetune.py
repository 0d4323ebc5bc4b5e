"""Fine-tune a run to few labels a class, beside zero-shot, a linear probe and training from nothing."""

from pcl.commands.main import script

if __name__ == "__main__":
    script("finetune")
