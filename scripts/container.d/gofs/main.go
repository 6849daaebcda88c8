// gofs BACKING MOUNTPOINT: shows a directory at another place. Built without cgo it is a static program, which no
// preloaded library can help to mount.
package main

import (
	"log"
	"os"

	"github.com/hanwen/go-fuse/fs"
)

func main() {
	root, err := fs.NewLoopbackRoot(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server, err := fs.Mount(os.Args[2], root, &fs.Options{})
	if err != nil {
		log.Fatal(err)
	}
	server.Wait()
}
