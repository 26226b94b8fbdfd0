"""Who answers rows and how they are asked, whatever surface the rows came by: stream, requests or files."""
