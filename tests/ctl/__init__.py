"""Tests of gpuctl against a scripted daemon."""
