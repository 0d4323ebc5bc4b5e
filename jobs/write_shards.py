"""Write the shards of a data source: one task a shard; a build that was cut off continues."""

from pcl.commands.main import script

if __name__ == "__main__":
    script("shards")
