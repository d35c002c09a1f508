"""Archives elsewhere (a PACS, an Orthanc, another Annotomy): asked, brought in from, sent to, and kept an eye on."""
