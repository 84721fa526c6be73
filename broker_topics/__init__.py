"""The language that devices and aggregator share: topics, frames, codecs, the chain and the bus."""
