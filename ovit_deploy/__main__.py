from ovit_deploy.cli import main

main()
