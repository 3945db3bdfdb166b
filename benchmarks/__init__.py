"""The figures of Customer Panel, each compared with a yardstick in the same run: scenes x engines."""
