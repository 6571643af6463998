"""The last stage: topics `candles` and `feed.gaps` into stores. One module per store and one worker."""
