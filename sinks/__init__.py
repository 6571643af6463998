"""The last stage: topic `candles` into stores. One module per store (`sqlite`), one worker for all of them."""
