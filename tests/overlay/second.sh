echo other >m/f; rm m/renamed m/new/again; rm -r m/low; mkdir m/low; mkdir m/low/in m/d/sub; mv m/d/z m/z; ln -s nowhere m/link
echo more >>m/z; chmod 640 m/hard; mv m/new m/renewed; rmdir m/e; echo file >m/e; touch m/pipe
