"""A real Apache Kafka on this machine: Java and jars from packages, one JVM a node, nothing to install by hand."""
