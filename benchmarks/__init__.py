"""The figures of Customer Panel, each against a yardstick in the same run: scenes x engines."""
