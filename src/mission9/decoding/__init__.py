"""Decode bytes to pixels, in processes that a hostile file may kill.

decode           bytes -> an RGB picture, or the reason for a reject
formats          bytes -> the parsers that may see them
plain_jpeg       the JPEGs that simplejpeg decodes
png_chunks       removal of unneeded parts of a PNG
pixels           the identity of the pixels that an installation gives
metadata         personal metadata in an image

feeder           paths and bytes -> pixels, by reader processes ahead of the network
reader           a reader process: files -> bytes and digests
decoder_process  the supervision of a decoder process
worker           a decoder process: bytes -> pixels
protocol         the messages between them
pixel_memory     the memory for pixels that they share
isolated         bytes -> pixels, by a decoder process of this one
"""
